"""The rows of an answer as text: a table for people, CSV and JSON for programs; no digit is lost."""

import csv
import datetime
import json
import math
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ckd.storage.sql import Answer

Value = Any
"""None, bool, int, float, Decimal, str, or a list or dict of them."""

NARROWEST = 8
"""A text column of a table on a terminal is not made narrower than this."""


def print_table(answer: Answer, stream: TextIO, limit: int) -> None:
    """Print the first ``limit`` rows as a table, and how many were left out.

    On a terminal wide texts are shortened to fit; numbers and piped output never are.
    """
    shown: list[tuple[Value, ...]] = []
    left = 0
    for batch in answer.batches():
        wanted = batch.slice(0, limit - len(shown))
        shown.extend(_rows(wanted))
        left += batch.num_rows - wanted.num_rows
    names = answer.schema.names
    if names == ["explain_key", "explain_value"]:
        stream.writelines(f"{plan}\n" for _, plan in shown)
        return
    numeric = [_is_number(kind) for kind in answer.schema.types]
    _print_cells(names, [[_cell(value) for value in row] for row in shown], numeric, stream)
    total = len(shown) + left
    rows = f"{total} row" if total == 1 else f"{total} rows"
    note = f", {left} of them left out: --limit-rows {total} shows all" if left else ""
    stream.write(f"{rows}{note}\n")


def write_csv(answer: Answer, stream: TextIO) -> None:
    """Write all rows as CSV (RFC 4180) with a header; nulls are empty, lists and structs are JSON."""
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(answer.schema.names)
    for batch in answer.batches():
        writer.writerows([_csv_field(value) for value in row] for row in _rows(batch))


def write_json(answer: Answer, stream: TextIO) -> None:
    """Write all rows as an array of objects; NaN and infinities, which JSON lacks, are null."""
    names = _distinct(answer.schema.names)
    separator = "[\n"
    for batch in answer.batches():
        for row in _rows(batch):
            stream.write(separator + _json_text(dict(zip(names, row, strict=True))))
            separator = ",\n"
    stream.write("[]\n" if separator == "[\n" else "\n]\n")


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[Value, ...]]:
    columns = [map(_plain(column.type), column.to_pylist()) for column in batch.columns]
    return zip(*columns, strict=True)


def _plain(kind: pa.DataType) -> Callable[[Any], Value]:
    """Return what makes the Python values of an Arrow type plain."""
    convert = _converter(kind)
    return lambda value: None if value is None else convert(value)


def _converter(kind: pa.DataType) -> Callable[[Any], Value]:
    if pa.types.is_float32(kind):
        return lambda value: float(str(np.float32(value)))  # 0.1, not 0.10000000149011612
    if pa.types.is_decimal(kind):
        return int if kind.scale == 0 else lambda value: value
    if pa.types.is_binary(kind):
        return lambda value: str(value.hex())
    if pa.types.is_map(kind):
        inner = _plain(kind.item_type)
        return lambda pairs: {str(key): inner(value) for key, value in pairs}
    if pa.types.is_struct(kind):
        fields = {field.name: _plain(field.type) for field in kind}
        return lambda value: {name: fields[name](inner) for name, inner in value.items()}
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        element = _plain(kind.value_type)
        return lambda values: [element(value) for value in values]
    return _scalar


def _scalar(value: Any) -> Value:
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, pa.MonthDayNano):
        return f"{value.months} months {value.days} days {value.nanoseconds / 1e9:g} seconds"
    return str(value)


def _csv_field(value: Value) -> Value:
    if isinstance(value, bool):
        return str(value).lower()
    return _json_text(value) if isinstance(value, list | dict) else value


def _json_text(value: Value) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=float)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, default=float)


def _finite(value: Value) -> Value:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _distinct(names: list[str]) -> list[str]:
    """Return the names, of equal ones the later with a number: an object can't hold a name twice."""
    distinct: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in count(1))
        free = (other for other in numbered if other not in names and other not in distinct)
        distinct.append(next(free) if name in distinct else name)
    return distinct


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _cell(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = _json_text(value) if isinstance(value, list | dict) else str(value)
    return printable(text)


def printable(text: str) -> str:
    """Return one line; item texts come from strangers, so control characters are shown, not sent."""
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def _print_cells(names: list[str], rows: list[list[str]], numeric: list[bool], stream: TextIO) -> None:
    widths = [max(map(cell_len, column)) for column in zip(names, *rows, strict=True)]
    if stream.isatty():
        widths = _fitted(widths, numeric, shutil.get_terminal_size().columns)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, number, width in zip(names, numeric, widths, strict=True):
        table.add_column(_shortened(name, width), justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_shortened(cell, width) for cell, width in zip(row, widths, strict=True)))
    Console(file=stream, width=sum(widths) + _GAP * len(widths), highlight=False).print(table)


_GAP = 3
"""Columns that the table spends between two cells."""


def _fitted(widths: list[int], numeric: list[bool], terminal: int) -> list[int]:
    """Return the widths with the widest texts made equal and narrower until the row fits the terminal."""
    room = terminal - sum(width + _GAP for width, number in zip(widths, numeric, strict=True) if number)
    texts = sorted(width for width, number in zip(widths, numeric, strict=True) if not number)
    cap = max(texts, default=0)
    for place, width in enumerate(texts):
        fair = room // (len(texts) - place) - _GAP
        if width > fair:
            cap = max(fair, NARROWEST)
            break
        room -= width + _GAP
    return [width if number else min(width, cap) for width, number in zip(widths, numeric, strict=True)]


def _shortened(text: str, width: int) -> Text:
    # Text, so that brackets in a title are not taken for markup.
    return Text(text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…")
