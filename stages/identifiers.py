"""Identifiers of users and items from the columns of any file: strings, or whole numbers where all are."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ckd.storage.errors import UserError

EXACT_FLOAT = 2.0**53


def as_ids(column: pa.ChunkedArray, path: Path, name: str) -> pa.Array:
    """Return identifiers as string or int64, null where missing or blank.

    Floats are taken if every one is a whole number: that is what some tools make of integers with gaps.

    Raises:
        UserError: the column's type can't identify anything.
    """
    values = plain(column)
    kind = values.type
    if _is_text(kind):
        return blank_to_null(as_string(values, path, name))
    if pa.types.is_null(kind):
        return values.cast(pa.string())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _whole_numbers(values, path, name)
    raise UserError(f"{path}: column {name!r} has type {kind}; identifiers must be strings or integers")


def same_type(first: pa.Array, second: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return both as strings unless both are integers: CSV knows only strings, Parquet may hold integers."""
    if first.type == second.type:
        return first, second
    return first.cast(pa.large_string()), second.cast(pa.large_string())


def plain(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, strings as large strings, without dictionary encoding."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())  # one array of strings may hold more than 2 GiB
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def as_string(values: pa.Array, path: Path, name: str) -> pa.Array:
    """Return values as large strings.

    Raises:
        UserError: the type holds no text.
    """
    try:
        return values.cast(pa.large_string())
    except pa.ArrowException as error:
        raise UserError(f"{path}: column {name!r} of type {values.type} holds no text ({error})") from error


def blank_to_null(values: pa.Array) -> pa.Array:
    """Return strings with null for those of white space alone."""
    blank = pc.equal(pc.utf8_trim_whitespace(values), "")
    return pc.if_else(blank, pa.scalar(None, values.type), values)


def _whole_numbers(values: pa.Array, path: Path, name: str) -> pa.Array:
    if pa.types.is_floating(values.type):
        numbers = values.fill_null(np.nan).to_numpy(zero_copy_only=False)
        missing = np.isnan(numbers)
        if not np.all(missing | ((np.floor(numbers) == numbers) & (np.abs(numbers) < EXACT_FLOAT))):
            raise UserError(f"{path}: column {name!r} holds fractional or huge numbers; write identifiers as strings")
        return pa.array(np.where(missing, 0, numbers).astype(np.int64), mask=missing)
    try:
        return values.cast(pa.int64())
    except pa.ArrowException as error:
        raise UserError(f"{path}: column {name!r} does not fit 64 bits ({error}); write it as strings") from error


def _is_text(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
        )
    )
