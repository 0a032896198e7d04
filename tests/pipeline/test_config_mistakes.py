"""What is said about a configuration that is wrong: for each mistake one line, which names it and the mend."""

from pathlib import Path

import pytest
import yaml
from config_files import SMALLEST, WHOLE, complaints
from pydantic import ValidationError

from ckd.pipeline.config.load import load_configuration
from ckd.pipeline.config.models import Configuration
from ckd.storage.errors import UserError


@pytest.mark.parametrize(
    ("added", "line"),
    [
        ("distill: {alpa: 1}", "4: distill.alpa: unknown key; did you mean alpha?"),
        (
            "distill:\n  curriculum:\n    paceing: root",
            "6: distill.curriculum.paceing: unknown key; did you mean pacing?",
        ),
        (
            "extra: 1",
            "4: extra: unknown key; known: store, seed, device, cluster, domains, sources, text, teachers, labels, "
            "students, distill, evaluate",
        ),
        ("seed: -1", "4: seed: must be 0 or more, not -1"),
        ("seed: many", "4: seed: must be a whole number, not 'many'"),
        ("seed: 1.5", "4: seed: must be a whole number, not 1.5"),
        ("seed: 2020-01-01", "4: seed: must be a whole number, not 2020-01-01"),
        ("seed:", "4: seed: must be a whole number, not empty"),
        ("store: 3", "4: store: must be text, not 3"),
        ("device: coda", "4: device: must be one of cuda, auto, cpu, not 'coda'; did you mean cuda?"),
        ("device: tpu5", "4: device: must be one of auto, cpu, cuda, not 'tpu5'"),
        (
            "distill: {curriculum: {pacing: off}}",
            "4: distill.curriculum.pacing: must be one of linear, root, step, none, not false",
        ),
        ("distill: {temperature: 0}", "4: distill.temperature: must be above 0, not 0"),
        ("distill: {temperature: warm}", "4: distill.temperature: must be a number, not 'warm'"),
        ("distill: {temperature: yes}", "4: distill.temperature: must be a number, not true"),
        ("seed: on", "4: seed: must be a whole number, not true"),
        ("distill: {alpha: 1.5}", "4: distill.alpha: must be 1 or less, not 1.5"),
        ("distill: {baseline: perhaps}", "4: distill.baseline: must be true or false, not 'perhaps'"),
        ("distill: {loss: {in_bach: 1}}", "4: distill.loss.in_bach: unknown key; did you mean in_batch?"),
        ("distill: {loss: {}}", "4: distill.loss: needs at least 1 entry"),
        (
            "distill: {loss: {top_k: -1}}",
            "4: distill.loss: weights must not be negative, and one must be above zero",
        ),
        ("students: {s: {kind: sasrec, dropout: 1}}", "4: students.s.dropout: must be below 1, not 1"),
        (
            "students: {s: {kind: sasrec, heads: 5}}",
            "4: students.s: hidden (64) must be a multiple of heads (5)",
        ),
        ("students: {s: {kind: sasrec, hiden: 8}}", "4: students.s.hiden: unknown key; did you mean hidden?"),
        ("students: {s: 3}", "4: students.s: must be a mapping (key: value), not 3"),
        ("students:", "4: students: is empty; give it keys, or remove the line"),
        ("text: [title]", "4: text: must be a mapping (key: value), not a list"),
        ("text: {encoder: 3}", "4: text.encoder: must be text, not 3"),
        ("text: {fields: title}", "4: text.fields: must be a list [a, b], not 'title'"),
        (
            "text:\n  fields:\n  - title\n  - titel",
            "7: text.fields[1]: must be one of title, brand, categories, description, not 'titel'; did you mean title?",
        ),
        ("text: {fields: [title, title]}", "4: text.fields: names a field twice"),
        (
            "sources: {new: {k_core: 3}}",
            "4: sources.new.path: missing (folder with items.* and interactions.* (parquet, csv, tsv or jsonl))",
        ),
        ("distill: {teachers: [cold]}", "4: distill.teachers[0]: no teacher is named 'cold'"),
        (
            "teachers: {cold: {kind: unisrec, checkpoint: c}}\ndistill: {teachers: [colt]}",
            "5: distill.teachers[0]: no teacher is named 'colt'; did you mean cold?",
        ),
        (
            "teachers: {cold: {kind: unisrec, checkpoint: c, domains: [ofice]}}",
            "4: teachers.cold.domains[0]: no domain is named 'ofice'; did you mean office?",
        ),
        (
            "teachers: {cold: {kind: recformer, pretrain: {}, tokenizer: t}}\nsources: {books: {path: b}}",
            "4: teachers.cold: tokenizer belongs to a checkpoint, and there is none; remove it",
        ),
        (
            "teachers: {cold: {kind: unisrec, checkpoint: c}}\nlabels: {state: no}",
            "5: labels.state: must be true: the loss in_batch scores items with the state; "
            "or take in_batch out of distill.loss",
        ),
        (
            "teachers:\n  warm:\n    kind: unisrec\n    pretrain: {}",
            "7: teachers.warm.pretrain: needs domains to train on; name at least one under sources",
        ),
        ("seed: 1\nseed: 2", "5: seed: given twice, first on line 4; keep one"),
        (
            "sources:\n  x: {path: a}\n  y: {path: b}\n  x: {path: c}",
            "7: sources.x: given twice, first on line 5; keep one",
        ),
        (
            "sources:\n  x: {path: a}\n  y: {path: data/./office}",
            "6: sources.y: holds the files of domain office, so teachers would see the items that are held out there; "
            "name other data",
        ),
        (
            "teachers: {a: {kind: unisrec, checkpoint: c, domains: 5}}",
            "4: teachers.a.domains: must be a list [a, b], not 5",
        ),
        (
            "teachers: {a: {kind: unisrec, checkpoint: c, domains: office}}",
            "4: teachers.a.domains: must be a list [a, b], not 'office'",
        ),
    ],
)
def test_a_mistake_is_answered_by_its_line(tmp_path: Path, added: str, line: str) -> None:
    assert complaints(tmp_path, f"{SMALLEST}{added}\n") == [f"pipeline.yaml:{line}"]


def test_a_kind_is_needed_and_must_be_known(tmp_path: Path) -> None:
    text = SMALLEST + "teachers:\n  a: {kind: unisrek}\n  b: {checkpoint: c}\n  c: {kind: [x]}\n"
    first, second, third = complaints(tmp_path, text)
    assert first.startswith(
        "pipeline.yaml:5: teachers.a.kind: unknown kind 'unisrek'; did you mean unisrec? known kinds: unisrec"
    )
    assert second.startswith("pipeline.yaml:6: teachers.b.kind: missing; known kinds: unisrec")
    assert third.startswith("pipeline.yaml:7: teachers.c.kind: unknown kind ")


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "a b", "", "ä", "x\n"])
@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("sources", {"path": "p"}),
        ("teachers", {"kind": "unisrec", "checkpoint": "c"}),
        ("students", {"kind": "sasrec"}),
    ],
)
def test_a_name_is_no_path(tmp_path: Path, part: str, value: dict[str, str], name: str) -> None:
    (line,) = complaints(tmp_path, SMALLEST + yaml.safe_dump({part: {name: value}}))
    rule = "a name is made of letters, digits, '_', '-' and '.', and does not start with '.'"
    assert line == f"pipeline.yaml:5: {part}.{name!r}: {rule}"


def test_domains_are_needed(tmp_path: Path) -> None:
    assert complaints(tmp_path, "seed: 1\n") == [
        "pipeline.yaml: domains: missing (domains to recommend in, by name; at least one)"
    ]
    assert complaints(tmp_path, "domains: {}\n") == ["pipeline.yaml:1: domains: needs at least 1 entry"]


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    text = (
        "seed: -1\n"
        "domains:\n"
        "  office: {k_core: 0}\n"
        "teachers:\n"
        "  warm: {kind: unisrec, pretrain: {epocs: 3}}\n"
        "labels: {state: false, precision: float61}\n"
        "distill:\n"
        "  alpa: 0.2\n"
        "  teachers: [worm]\n"
        "distill:\n"
        "  alpa: 0.2\n"
        "  teachers: [worm]\n"
    )
    assert complaints(tmp_path, text, "evaluate.cutoffs=ten", "evaluate.mask_histori=yes", "nonsense") == [
        "pipeline.yaml:1: seed: must be 0 or more, not -1",
        "pipeline.yaml:3: domains.office.path: missing (folder with items.* and interactions.* "
        "(parquet, csv, tsv or jsonl))",
        "pipeline.yaml:3: domains.office.k_core: must be 1 or more, not 0",
        "pipeline.yaml:5: teachers.warm.pretrain.epocs: unknown key; did you mean epochs?",
        "pipeline.yaml:5: teachers.warm.pretrain: needs domains to train on; name at least one under sources",
        "pipeline.yaml:6: labels.precision: must be one of float16, bfloat16, fixed, exact, not 'float61'; "
        "did you mean float16?",
        "pipeline.yaml:6: labels.state: must be true: the loss in_batch scores items with the state; "
        "or take in_batch out of distill.loss",
        "pipeline.yaml:10: distill: given twice, first on line 7; keep one",
        "pipeline.yaml:11: distill.alpa: unknown key; did you mean alpha?",
        "pipeline.yaml:12: distill.teachers[0]: no teacher is named 'worm'; did you mean warm?",
        "--set evaluate.cutoffs=ten: must be a list [a, b], not 'ten'",
        "--set evaluate.mask_histori=yes: unknown key; did you mean mask_history?",
        "--set nonsense: write KEY=VALUE, for example --set distill.alpha=0.3",
    ]


def test_what_does_not_fit_together_is_reported_beside_what_is_wrong_by_itself(tmp_path: Path) -> None:
    text = """\
domains: {a: {path: x, columns: {item_idd: asin}}}
students:
  s: {kind: sasrec, hidden: 63, dropout: 2}
teachers:
  t: {kind: unisrec, pretrain: {network: {hidden: 7, layers: many}}}
labels: {splits: [valid]}
distill: {curriculum: {difficulty: {lenght: 1}}}
"""
    assert [line.removeprefix("pipeline.yaml:") for line in complaints(tmp_path, text)] == [
        "1: domains.a.columns.item_idd: unknown key; did you mean item_id?",
        "3: students.s.dropout: must be below 1, not 2",
        "3: students.s: hidden (63) must be a multiple of heads (2)",
        "5: teachers.t.pretrain.network.layers: must be a whole number, not 'many'",
        "5: teachers.t.pretrain: needs domains to train on; name at least one under sources",
        "5: teachers.t.pretrain.network: hidden (7) must be a multiple of heads (2)",
        "6: labels.splits: must hold train: students learn from the labels of training positions",
        "7: distill.curriculum.difficulty: 'lenght' is neither a term (length, popularity, teacher_loss, disagreement) "
        "nor an SQL aggregate such as avg(entropy); did you mean length?",
    ]


def test_no_message_is_pydantics_own(tmp_path: Path) -> None:
    text = WHOLE.replace("device: cpu", "device: [1]").replace("seed: 7", "seed: {a: 1}")
    said = "\n".join(complaints(tmp_path, text, "distill.difficulty=3", "evaluate.cutoffs=[x]"))
    assert "pydantic" not in said
    assert "Input" not in said


def test_settings_that_do_not_fit_are_refused_without_a_file_too() -> None:
    with pytest.raises(ValidationError, match="name at least one under sources"):
        Configuration.model_validate(
            {"domains": {"a": {"path": "p"}}, "teachers": {"t": {"kind": "unisrec", "pretrain": {}}}}
        )


# --- the file itself


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", ": is empty, not keys and values; it needs at least the key domains"),
        (b"# nothing\n", ": is empty, not keys and values; it needs at least the key domains"),
        (b"[a, b]\n", ": holds a list, not keys and values; it needs at least the key domains"),
        (b"domains\n", ": holds only 'domains', not keys and values; it needs at least the key domains"),
        (b"seed: 1\nstore: \xff\n", ":2: byte 0xff is not UTF-8; save the file as UTF-8"),
        (
            b"seed: 1\nstore: a: b\n",
            ":2: not valid YAML: mapping values are not allowed here (column 9)",
        ),
        (
            b"seed: !!python/object:os.system {}\n",
            ":1: not valid YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object:os.system' (column 7)",
        ),
        (b"? [a]\n: 1\n", ":1: not valid YAML: a key must be plain text (column 3)"),
        (b"seed: 2020-13-01\n", ": not valid YAML: month must be in 1..12"),
        (b"a: " + b"[" * 3000, ": not valid YAML: it is nested too deeply"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: bytes, line: str) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_configuration(path)
    assert str(caught.value) == f"{path}{line}"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_configuration(tmp_path / "none.yaml")
    assert str(caught.value) == f"{tmp_path}/none.yaml: no such file; name the configuration with -c FILE"
    with pytest.raises(UserError) as caught:
        load_configuration(tmp_path)
    assert str(caught.value) == f"{tmp_path}: is a folder; name the configuration file in it with -c FILE"


def test_many_aliases_of_aliases_do_no_harm(tmp_path: Path) -> None:
    rows = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    assert len(complaints(tmp_path, SMALLEST + "\n".join(rows) + "\n")) == 60


def test_an_alias_of_itself_does_no_harm(tmp_path: Path) -> None:
    assert complaints(tmp_path, SMALLEST + "text: &t {fields: *t}\n") == [
        "pipeline.yaml:4: text.fields: must be a list [a, b], not a mapping"
    ]
