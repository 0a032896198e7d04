"""Tables of numbers on windows of any width: every number is there, whole, beside the keys of its row."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ckd.pipeline.report.layout import print_numbers

KEYS = ["teacher", "domain"]


def printed(width: int, numbers: list[str], rows: list[list[str] | None]) -> list[list[str]]:
    """Return the words of each printed line, without empty ones and rules."""
    out = io.StringIO()
    print_numbers(Console(file=out, width=width), KEYS, numbers, rows)
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert max(map(len, out.getvalue().splitlines())) <= width
    return [words for words in lines if words and set(words[0]) != {"─"}]


@given(st.integers(30, 200), st.integers(1, 12), st.integers(1, 4), st.data())
def test_every_number_stands_whole_in_the_row_of_its_keys(width: int, columns: int, n_rows: int, data: st.DataObject):
    sizes = st.integers(0, 10**12).map(str)
    names = [f"m{column}" for column in range(columns)]
    rows: list[list[str] | None] = [[f"t{n}", f"d{n}", *(data.draw(sizes) for _ in names)] for n in range(n_rows)]
    lines = printed(width, names, rows)
    parts = [number for number, words in enumerate(lines) if words[:2] == KEYS]
    assert [word for start in parts for word in lines[start][2:]] == names
    for n, row in enumerate(rows):
        assert row is not None
        assert [lines[start + 1 + n][:2] for start in parts] == [row[:2]] * len(parts)
        assert [word for start in parts for word in lines[start + 1 + n][2:]] == row[2:]


def test_a_wide_window_shows_one_table() -> None:
    rows: list[list[str] | None] = [["a", "b", "0.1234", "5"], None, ["c", "d", "0.5", "123456"]]
    lines = printed(80, ["N@10", "positions"], rows)
    assert lines == [[*KEYS, "N@10", "positions"], ["a", "b", "0.1234", "5"], ["c", "d", "0.5", "123456"]]
