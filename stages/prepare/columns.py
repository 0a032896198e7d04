"""From the columns of a raw file to ours: names, types of identifiers, text of texts."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ckd.stages.prepare.masks import as_bools
from ckd.storage.corpus import TEXT_FIELDS
from ckd.storage.errors import UserError

ITEM_COLUMNS = ("item_id", *TEXT_FIELDS)
INTERACTION_COLUMNS = ("user_id", "item_id", "timestamp")
SEPARATORS = {"categories": ", "}
"""What joins the strings of a list in a text field; a space in the fields that are not named."""

EXACT_FLOAT = 2.0**53


def check_mapping(columns: Mapping[str, str], items: Sequence[str], interactions: Sequence[str], where: str) -> None:
    """Refuse an entry of the column mapping that can have no effect.

    Args:
        columns: our name to the name in the files.
        items: column names of the raw items.
        interactions: column names of the raw interactions.
        where: the configuration key, for the message.

    Raises:
        UserError: an entry names a column that no file has.
    """
    for ours, theirs in columns.items():
        there = [
            *(items if ours in ITEM_COLUMNS else ()),
            *(interactions if ours in INTERACTION_COLUMNS else ()),
        ]
        if theirs not in there:
            raise UserError(
                f"{where}.{ours}: no raw file has a column {theirs!r} for it "
                f"(there are {', '.join(dict.fromkeys(there))}){_nearest(theirs, there)}"
            )


def find_column(table: pa.Table, ours: str, columns: Mapping[str, str]) -> pa.ChunkedArray | None:
    """Return a raw column by our name: the mapped one, else the one of the same name, else None."""
    for name in (columns.get(ours, ours), ours):
        if name in table.column_names:
            return table[name]
    return None


def need_column(table: pa.Table, ours: str, columns: Mapping[str, str], path: Path, where: str) -> pa.ChunkedArray:
    """Return a raw column as :func:`find_column` does.

    Raises:
        UserError: it is not there; the text names the columns that are, and the nearest.
    """
    column = find_column(table, ours, columns)
    if column is None:
        present = table.column_names
        raise UserError(
            f"{path} has no column {ours!r}, only {', '.join(present) or 'none'}{_nearest(ours, present)}; "
            f"rename it in the file or map it with {where}: {{{ours}: <name in the file>}}"
        )
    return column


def as_ids(column: pa.ChunkedArray, path: Path, name: str) -> pa.Array:
    """Return identifiers as string or int64, null where missing or blank.

    Floats are taken if every one is a whole number: that is what some tools make of integers with gaps.

    Raises:
        UserError: the column's type can't identify anything.
    """
    values = plain(column)
    kind = values.type
    if _is_text(kind):
        return _blank_to_null(_as_string(values, path, name))
    if pa.types.is_null(kind):
        return values.cast(pa.string())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _whole_numbers(values, path, name)
    raise UserError(f"{path}: column {name!r} has type {kind}; identifiers must be strings or integers")


def as_text(column: pa.ChunkedArray, path: Path, name: str) -> pa.Array:
    """Return a text field as string, null where missing or blank; the strings of a list are joined.

    Raises:
        UserError: the column's type has no text.
    """
    values = plain(column)
    if _is_list(values.type):
        values = _joined(values, SEPARATORS.get(name, " "), path, name)
    return _blank_to_null(_as_string(values, path, name))


def same_type(first: pa.Array, second: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return both as strings unless both are integers: CSV knows only strings, Parquet may hold integers."""
    if first.type == second.type:
        return first, second
    return first.cast(pa.large_string()), second.cast(pa.large_string())


def plain(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, strings as large strings, without dictionary encoding."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type):
        column = column.cast(pa.large_string())  # one array of strings may hold more than 2 GiB
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _as_string(values: pa.Array, path: Path, name: str) -> pa.Array:
    try:
        return values.cast(pa.large_string())
    except pa.ArrowException as error:
        raise UserError(f"{path}: column {name!r} of type {values.type} holds no text ({error})") from error


def _blank_to_null(values: pa.Array) -> pa.Array:
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


def _joined(values: pa.Array, separator: str, path: Path, name: str) -> pa.Array:
    """Join the strings of each list, of nested lists too, without the blank ones."""
    rows = len(values)
    parents: npt.NDArray[np.int64] = np.arange(rows)
    while _is_list(values.type):
        parents = parents[pc.list_parent_indices(values).to_numpy()]
        values = pc.list_flatten(values)
    words = _blank_to_null(_as_string(values, path, name))
    there = as_bools(words.is_valid())
    offsets = np.concatenate([[0], np.cumsum(np.bincount(parents[there], minlength=rows))])
    lists = pa.LargeListArray.from_arrays(pa.array(offsets.astype(np.int64)), words.drop_null())
    return pc.binary_join(lists, pa.scalar(separator, words.type))


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


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _nearest(name: str, names: Sequence[str]) -> str:
    by_lower = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return f"; nearest: {by_lower[close[0]]!r}" if close else ""
