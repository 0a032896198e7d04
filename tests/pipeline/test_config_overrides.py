"""Overrides of a configuration (``--set KEY=VALUE``)."""

from pathlib import Path

import pytest
import yaml
from config_files import SMALLEST, complaints, written
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ckd.pipeline.config import reference
from ckd.pipeline.config.load import load_configuration
from ckd.pipeline.config.overrides import apply_override, parse_override


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
