"""The look that all tables share."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

LAYOUT: dict[str, Any] = {"box": SIMPLE_HEAD, "show_edge": False, "pad_edge": False, "padding": (0, 1, 0, 0)}
_GAP = 2
NOTHING = "—"
"""A cell of what there is none of: no labels of that split, no network to serve."""

Row = Sequence[str] | None
"""Cells of the keys and then of the numbers; None is a line between rows."""


def number(value: float | None, form: str) -> str:
    """Return a number as a cell, :data:`NOTHING` for None and NaN."""
    return NOTHING if value is None or value != value else format(value, form)


def print_numbers(console: Console, keys: Sequence[str], numbers: Sequence[str], rows: Sequence[Row]) -> None:
    """Print a table whose numbers are never cut: where the window is too narrow, in several parts below each other.

    Args:
        console: where to.
        keys: headings of the columns that say what a row is about; every part repeats them.
        numbers: headings of the other columns.
        rows: the cells.
    """
    cells = [list(row) for row in rows if row is not None]
    widths = [max(map(len, column)) for column in zip([*keys, *numbers], *cells, strict=True)]
    parts = list(_parts(widths[: len(keys)], widths[len(keys) :], console.width))
    for number, part in enumerate(parts):
        if number:
            console.print()
        console.print(_table(keys, numbers, rows, part))


def _parts(keys: Sequence[int], numbers: Sequence[int], width: int) -> Iterator[range]:
    """Yield ranges of number columns that fit beside the keys; one column at least in each."""
    room = width - sum(size + _GAP for size in keys)
    start, used = 0, 0
    for column, size in enumerate(numbers):
        if column > start and used + size > room:
            yield range(start, column)
            start, used = column, 0
        used += size + _GAP
    yield range(start, len(numbers))


def _table(keys: Sequence[str], numbers: Sequence[str], rows: Sequence[Row], part: range) -> Table:
    table = Table(**LAYOUT)
    for name in keys:
        table.add_column(name, no_wrap=True)
    for column in part:
        table.add_column(numbers[column], justify="right", no_wrap=True)
    for row in rows:
        if row is None:
            table.add_section()
        else:
            table.add_row(*row[: len(keys)], *(row[len(keys) + column] for column in part))
    return table
