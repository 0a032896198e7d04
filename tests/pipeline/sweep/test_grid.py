"""The text of `--grid`: which values it holds."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ckd.pipeline.sweep.grid import GridError, clashes, grid_points, parse_grid, split_values

PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=3),
    max_leaves=6,
)


def flow(value):
    """A value as YAML on one line, as people and programs write it."""
    return yaml.safe_dump(value, default_flow_style=True, width=float("inf")).removesuffix("\n").removesuffix("\n...")


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_values_written_as_yaml_come_back(values):
    parsed = parse_grid("a.b=" + ",".join(map(flow, values)))
    assert [override.value for override in parsed] == values
    assert {override.parts for override in parsed} == {("a", "b")}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0.2,0.5", ["0.2", "0.5"]),
        ("{a: 1, b: [2, 3]},{}", ["{a: 1, b: [2, 3]}", "{}"]),
        ('"x,y",z', ['"x,y"', "z"]),
        (r'"a\",b",c', [r'"a\",b"', "c"]),
        (r'"a\\",b', [r'"a\\"', "b"]),
        ("'it''s, so',b", ["'it''s, so'", "b"]),
        ("it's,so", ["it's", "so"]),
        ("a", ["a"]),
        ("a,", ["a", ""]),
    ],
)
def test_commas_in_brackets_braces_and_quotes_separate_nothing(text, parts):
    assert split_values(text) == parts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("distill.alpha", "--grid distill.alpha: write KEY=V1,V2,..., for example --grid distill.alpha=0.2,0.5"),
        ("a=1,,2", "--grid a=1,,2: a value is empty; write null for none, or take a comma away"),
        ("a..b=1", "--grid a..b=1: write KEY=VALUE, for example --grid distill.alpha=0.3"),
    ],
)
def test_what_is_no_grid_is_said_in_one_line(text, said):
    with pytest.raises(GridError) as error:
        parse_grid(text)
    assert error.value.args == (said,)


def test_every_value_that_is_no_yaml_is_named():
    with pytest.raises(GridError) as error:
        parse_grid("a=*x,1,&")
    assert [line.split(": ")[0] for line in error.value.args] == ["--grid a=*x", "--grid a=&"]


def test_several_grids_are_combined_each_with_each():
    points = grid_points([parse_grid("a=1,2"), parse_grid("b=x,y")])
    assert [tuple(override.text for override in point) for point in points] == [
        ("a=1", "b=x"),
        ("a=1", "b=y"),
        ("a=2", "b=x"),
        ("a=2", "b=y"),
    ]
    assert list(grid_points([])) == [()]


def test_a_grid_that_replaces_what_another_sets_is_refused_and_one_within_it_is_not():
    inner, outer, other = parse_grid("a.b=1,2"), parse_grid("a={b: 1}"), parse_grid("ab=1")
    assert clashes([outer, inner, other]) == []
    assert clashes([inner, outer]) == ["--grid a: replaces what --grid a.b sets; name it before that of a.b"]
    assert clashes([inner, inner]) == ["--grid a.b: replaces what --grid a.b sets; name all its values in one"]
