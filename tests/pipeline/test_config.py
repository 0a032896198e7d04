"""The configuration: what is accepted, what is said about what is not, and how it is explained."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from ckd.pipeline.config import reference
from ckd.pipeline.config.load import load_configuration
from ckd.pipeline.config.models import ByKind, Configuration
from ckd.pipeline.config.overrides import apply_override, parse_override
from ckd.pipeline.config.schema import kinds_of, meaning, model_of, values_of
from ckd.stages import settings as stage_settings
from ckd.stages.distill.settings import DistillSettings
from ckd.storage.errors import UserError

SMALLEST = "domains:\n  office:\n    path: data/office\n"

WHOLE = """\
store: made
seed: 7
device: cpu
domains:
  office: {path: data/office, columns: {item_id: asin}, text_vectors: data/office.npy}
  "2020": {path: /elsewhere/2020, k_core: 3}
sources:
  food: {path: ~/food, format: unisrec}
teachers:
  cold: {kind: unisrec, checkpoint: "teachers/{domain}"}
  warm:
    kind: unisrec
    pretrain: {epochs: 1, network: {hidden: 32}}
    adapt: {mode: transductive}
students:
  small: {kind: sasrec, hidden: 16, heads: 4}
text: {fields: [title]}
labels: {splits: [valid, train]}
distill:
  teachers: [cold]
  epochs: 7
  curriculum: {difficulty: {"length * 2 + 'a: b'": 0.5}, pacing: none}
evaluate: {cutoffs: [5]}
"""


def written(folder: Path, text: str) -> Path:
    """Return a configuration file in a folder."""
    path = folder / "pipeline.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def complaints(folder: Path, text: str, *overrides: str) -> list[str]:
    """Return the lines that are said about a configuration, the folder's name left out."""
    with pytest.raises(UserError) as caught:
        load_configuration(written(folder, text), overrides)
    return str(caught.value).replace(f"{folder}{os.sep}", "").splitlines()


def test_the_smallest_configuration_needs_one_domain(tmp_path: Path) -> None:
    configuration = load_configuration(written(tmp_path, SMALLEST))
    assert list(configuration.domains) == ["office"]
    assert (configuration.seed, configuration.device, configuration.sources) == (0, "auto", {})
    assert configuration.store == str(tmp_path / "store")


def test_a_whole_configuration_is_read(tmp_path: Path) -> None:
    configuration = load_configuration(written(tmp_path, WHOLE))
    assert list(configuration.domains) == ["office", "2020"]
    assert configuration.teachers["warm"].pretrain.network.hidden == 32
    assert configuration.students["small"].heads == 4
    assert configuration.labels.splits == ("train", "valid")


def test_a_number_that_yaml_takes_for_text_is_a_number(tmp_path: Path) -> None:
    path = written(tmp_path, SMALLEST + "students:\n  small: {kind: sasrec, learning_rate: 1e-3}\n")
    assert yaml.safe_load(path.read_text())["students"]["small"]["learning_rate"] == "1e-3"
    assert load_configuration(path).students["small"].learning_rate == 0.001
    assert load_configuration(path, ["students.small.learning_rate=2e-4"]).students["small"].learning_rate == 0.0002


def test_names_of_keys_are_text_as_written(tmp_path: Path) -> None:
    text = "domains:\n  2020: {path: a}\n  on: {path: b}\n  1e3: {path: c}\n  0x10: {path: d}\n"
    assert list(load_configuration(written(tmp_path, text)).domains) == ["2020", "on", "1e3", "0x10"]


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    text = "domains:\n  a: &a {path: x, k_core: 2}\n  b:\n    <<: *a\n    k_core: 3\n"
    configuration = load_configuration(written(tmp_path, text))
    assert (configuration.domains["b"].path, configuration.domains["b"].k_core) == (tmp_path / "x", 3)


# --- paths


def test_relative_paths_count_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    written(tmp_path / "project", WHOLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    configuration = load_configuration(Path("project/pipeline.yaml"), ["text.encoder=./encoders/mine"])
    project = tmp_path / "project"
    assert configuration.store == str(project / "made")
    assert configuration.domains["office"].path == project / "data/office"
    assert configuration.domains["office"].text_vectors == project / "data/office.npy"
    assert configuration.domains["2020"].path == Path("/elsewhere/2020")
    assert configuration.sources["food"].path == Path("/home/somebody/food")
    assert configuration.teachers["cold"].checkpoint == str(project / "teachers/{domain}")
    assert configuration.text.encoder == str(project / "encoders/mine")


def test_paths_in_overrides_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE)
    overrides = ["store=there", "domains.office.path=x", "teachers.cold.checkpoint=../y"]
    configuration = load_configuration(path, overrides)
    assert configuration.store == str(tmp_path / "there")
    assert configuration.domains["office"].path == tmp_path / "x"
    assert configuration.teachers["cold"].checkpoint == str(tmp_path / "../y")


def test_an_encoder_that_is_a_name_stays_a_name(tmp_path: Path) -> None:
    path = written(tmp_path, SMALLEST)
    assert load_configuration(path).text.encoder == "sentence-transformers/all-MiniLM-L6-v2"
    assert load_configuration(path, ["text.encoder=/e"]).text.encoder == "/e"


def test_the_home_of_nobody_is_just_a_path(tmp_path: Path) -> None:
    configuration = load_configuration(written(tmp_path, SMALLEST), ["store=~nobody-of-that-name/x"])
    assert configuration.store == str(tmp_path / "~nobody-of-that-name/x")


# --- one mistake, one line


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


@pytest.mark.parametrize("loss", ["{top_k: 1}", "{in_batch: 0, top_k: 1}"])
def test_labels_without_state_do_where_no_loss_needs_it(tmp_path: Path, loss: str) -> None:
    path = written(tmp_path, WHOLE)
    assert not load_configuration(path, ["labels.state=false", f"distill.loss={loss}"]).labels.state
    assert not load_configuration(path, ["labels.state=false", "distill.teachers=[]"]).labels.state


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


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALLEST.encode())
    assert list(load_configuration(path).domains) == ["office"]


def test_many_aliases_of_aliases_do_no_harm(tmp_path: Path) -> None:
    rows = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    assert len(complaints(tmp_path, SMALLEST + "\n".join(rows) + "\n")) == 60


def test_an_alias_of_itself_does_no_harm(tmp_path: Path) -> None:
    assert complaints(tmp_path, SMALLEST + "text: &t {fields: *t}\n") == [
        "pipeline.yaml:4: text.fields: must be a list [a, b], not a mapping"
    ]


# --- overrides


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("distill.alpa=0.3", "--set distill.alpa=0.3: unknown key; did you mean alpha?"),
        ("distill={alpa: 0.3}", "--set distill={alpa: 0.3}: distill.alpa: unknown key; did you mean alpha?"),
        ("seed", "--set seed: write KEY=VALUE, for example --set distill.alpha=0.3"),
        ("=3", "--set =3: write KEY=VALUE, for example --set distill.alpha=0.3"),
        ("distill..alpha=3", "--set distill..alpha=3: write KEY=VALUE, for example --set distill.alpha=0.3"),
        ("seed.x=3", "--set seed.x=3: seed is not a mapping, so it has no key x"),
        ("seed={a: 1, a: 2}", "--set seed={a: 1, a: 2}: a: given twice; keep one"),
        (
            "seed={",
            "--set seed={: the value is not valid YAML: while parsing a flow node, "
            "expected the node content, but found '<stream end>' (column 2)",
        ),
        (
            "domains.new.k_core=3",
            "--set domains.new.k_core=3: domains.new.path: missing (folder with items.* and interactions.* "
            "(parquet, csv, tsv or jsonl))",
        ),
        ("seed=a\n b", "--set seed=a…: must be a whole number, not 'a b'"),
        (f"seed={'x' * 100}", f"--set seed={'x' * 55}…: must be a whole number, not '{'x' * 59}…"),
    ],
)
def test_a_bad_override_is_named_as_typed(tmp_path: Path, override: str, line: str) -> None:
    assert complaints(tmp_path, SMALLEST + "seed: 1\n", override) == [line]


def test_overrides_make_what_is_missing_on_the_way_and_the_last_counts(tmp_path: Path) -> None:
    path = written(tmp_path, SMALLEST + "students:\n")
    overrides = ["students.s.kind=sasrec", "students.s.hidden=8", "students.s.hidden=16", "seed=3"]
    configuration = load_configuration(path, overrides)
    assert (configuration.students["s"].hidden, configuration.seed) == (16, 3)


def test_an_override_changes_one_alias_only(tmp_path: Path) -> None:
    path = written(tmp_path, "domains:\n  a: &a {path: x}\n  b: *a\n")
    configuration = load_configuration(path, ["domains.b.k_core=9"])
    assert [domain.k_core for domain in configuration.domains.values()] == [5, 9]


def test_an_override_finds_a_name_with_dots(tmp_path: Path) -> None:
    path = written(tmp_path, "domains:\n  a.b: {path: x}\n  a: {path: y}\n")
    configuration = load_configuration(path, ["domains.a.b.k_core=9"])
    assert {name: domain.k_core for name, domain in configuration.domains.items()} == {"a.b": 9, "a": 5}


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.from_regex(r"[a-zA-Z0-9_-]+", fullmatch=True), min_size=1, max_size=4), plain)
def test_any_value_survives_an_override(parts: list[str], value: object) -> None:
    text = f"{'.'.join(parts)}={yaml.safe_dump(value, default_flow_style=True)}"
    data, key = apply_override({}, parse_override(text))
    assert key == tuple(parts)
    for part in parts:
        data = data[part]
    assert data == value


@settings(max_examples=50, deadline=None)
@example(encoder="\x85", difficulty={"\u2028 a": 1.0}, alpha=0.5, bootstrap=100)
@given(
    encoder=st.text(min_size=1).filter(lambda text: text[0] not in "./~"),
    difficulty=st.dictionaries(
        st.text().filter(lambda text: not text.isidentifier()), st.floats(-1e300, 1e300), min_size=1, max_size=3
    ),
    alpha=st.floats(0, 1),
    bootstrap=st.integers(100, 10**12),
)
def test_values_survive_overrides_loading_and_printing(
    tmp_path_factory: pytest.TempPathFactory,
    encoder: str,
    difficulty: dict[str, float],
    alpha: float,
    bootstrap: int,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    values = {
        "text.encoder": encoder,
        "distill.curriculum.difficulty": difficulty,
        "distill.alpha": alpha,
        "evaluate.bootstrap": bootstrap,
    }
    overrides = [f"{key}={yaml.safe_dump(value, default_flow_style=True)}" for key, value in values.items()]
    configuration = load_configuration(written(folder, SMALLEST), overrides)
    assert configuration.text.encoder == encoder
    assert configuration.distill.curriculum.difficulty == difficulty
    assert (configuration.distill.alpha, configuration.evaluate.bootstrap) == (alpha, bootstrap)
    assert load_configuration(written(folder, reference.as_yaml(configuration))) == configuration


# --- kinds


class First(stage_settings.Settings):
    """The first kind."""

    kind: Literal["first"] = "first"
    size: int = Field(default=1, description="of it")


class Second(stage_settings.Settings):
    """The second kind."""

    kind: Literal["second"] = "second"
    name: str = Field(description="of it")


class Registered:
    """A registry of some settings models, as another package would extend ours."""

    def __init__(self, **models: type[stage_settings.Settings]) -> None:
        self._models = models

    def names(self) -> list[str]:
        return list(self._models)

    def load(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(Settings=self._models[name])


def test_kinds_are_told_apart_with_one_and_with_many() -> None:
    one = TypeAdapter(Annotated[Any, ByKind(Registered(first=First))])  # type: ignore[arg-type]
    many = TypeAdapter(Annotated[Any, ByKind(Registered(first=First, second=Second))])  # type: ignore[arg-type]
    assert one.validate_python({"kind": "first"}) == First()
    assert many.validate_python({"kind": "second", "name": "x"}) == Second(name="x")
    for adapter in (one, many):
        with pytest.raises(ValidationError):
            adapter.validate_python({"size": 2})


# --- the reference


def every_model() -> list[type[BaseModel]]:
    """Return each settings model that a configuration can hold."""
    found: list[type[BaseModel]] = []
    waiting: list[type[stage_settings.Settings]] = [Configuration]
    while waiting:
        model = waiting.pop()
        found.append(model)
        for field in model.model_fields.values():
            values = values_of(field.annotation)
            inner = [model_of(field.annotation), model_of(values), *kinds_of(values).values()]
            waiting.extend(one for one in inner if one is not None and one not in found)
    return found


def test_every_key_has_a_meaning() -> None:
    models = every_model()
    assert len(models) > 10
    assert [
        f"{model.__module__}.{model.__name__}.{name}"
        for model in models
        for name in model.model_fields
        if not meaning(model, name)
    ] == []


def test_the_printed_configuration_loads_back_to_an_equal_one(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for text in (SMALLEST, WHOLE):
        configuration = load_configuration(written(tmp_path, text))
        printed = reference.as_yaml(configuration)
        assert load_configuration(written(tmp_path / "other", printed)) == configuration


def test_each_printed_key_stands_under_its_meaning_and_default(tmp_path: Path) -> None:
    lines = reference.as_yaml(load_configuration(written(tmp_path, WHOLE))).splitlines()
    seed = lines.index("seed: 7")
    assert lines[seed - 1] == "# seed of the students; a teacher that is trained has its own (default: 0)"
    path = lines.index(f"    path: {tmp_path}/data/office")
    assert lines[path - 1].endswith("(required)")
    assert max(len(line) for line in lines if line.lstrip().startswith("#")) <= 110


def test_the_table_has_every_key_once() -> None:
    rows = reference.key_table().splitlines()
    keys = [row.split("  ")[0] for row in rows]
    assert len(set(keys)) == len(keys)
    expected = {"seed", "domains.<name>.path", "distill.curriculum.pacing", "students.<name>.heads (sasrec)"}
    assert expected <= set(keys)
    (alpha,) = [row for row in rows if row.startswith("distill.alpha ")]
    assert alpha.split("  ")[0] == "distill.alpha"
    assert "number >= 0 <= 1" in alpha
    assert f" {DistillSettings().alpha} " in alpha
