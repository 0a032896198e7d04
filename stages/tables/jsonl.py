"""JSON lines: one object a line, a missing field is null, a field has one type throughout the file."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.json as arrow_json

from ckd.storage.errors import UserError

BLOCK_BYTES = 1 << 26
"""Arrow wants every object to fit into one block; no item description is that long."""


def read(path: Path) -> pa.Table:
    """Return the whole file, with strings left as strings even where all of them look like dates.

    Raises:
        UserError: a line is not a JSON object, or a field changes its type; the text names file and row.
    """
    try:
        table = _read(path, None)
        texts = {field.name: _with_text(field.type) for field in table.schema}
        dates = [(name, kind) for name, kind in texts.items() if kind != table.schema.field(name).type]
        if dates:
            table = _read(path, pa.schema(dates))
        table.validate(full=True)  # Arrow's parser lets broken UTF-8 through.
    except (OSError, pa.ArrowException) as error:
        raise UserError(_complaint(path, error)) from error
    return table


def _read(path: Path, schema: pa.Schema | None) -> pa.Table:
    return arrow_json.read_json(
        path,
        read_options=arrow_json.ReadOptions(block_size=BLOCK_BYTES),
        parse_options=arrow_json.ParseOptions(explicit_schema=schema),
    )


def _with_text(kind: pa.DataType) -> pa.DataType:
    """Return the type that a field has if what Arrow took for dates, in lists and objects too, is left as text."""
    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_with_text(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _with_text(field.type)) for field in kind])
    return kind


def _complaint(path: Path, error: Exception) -> str:
    """Arrow counts rows from a block's start and from 0: find the row again, slowly, to name it rightly."""
    first: dict[str, tuple[str, int]] = {}
    try:
        with path.open("rb") as stream:
            row = 0
            for line in stream:
                if not line.strip():
                    continue
                row += 1
                problem = _problem(line, row, first)
                if problem:
                    return f"{path}, row {row}: {problem}"
    except OSError:
        pass
    reason = "it is empty" if not first and not isinstance(error, OSError) else str(error)
    return f"{path} cannot be read as JSON lines ({reason}); it needs one JSON object a line"


def _problem(line: bytes, row: int, first: dict[str, tuple[str, int]]) -> str | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # bad JSON, bad UTF-8, and what is nested too deeply
        return f"not a JSON object in UTF-8 ({error}); correct or remove the line"
    if not isinstance(record, dict):
        return f"{_kind(record)} where a JSON object is expected; correct or remove the line"
    for name, value in record.items():
        if value is None:
            continue
        kind, since = first.setdefault(name, (_kind(value), row))
        if kind != _kind(value):
            return f"field {name!r} is {_kind(value)}, but {kind} in row {since}; give it one type throughout"
    return None


def _kind(value: object) -> str:
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return kinds.get(type(value), "an object" if isinstance(value, dict) else "null")
