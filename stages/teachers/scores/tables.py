"""Lists from a table: long, one listed item a row, or wide, one list a row."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ckd.stages.identifiers import as_ids, plain
from ckd.stages.tables import read_file
from ckd.stages.teachers.scores.listing import Float64s, Int64s, Listing
from ckd.storage.errors import UserError

FORMS = (
    "a table needs user_id, position and either item_id with rank or score (one listed item a row) or the list items "
    "(one list a row)"
)


def read_table_lists(path: Path, scored: bool) -> Listing:
    """Return the lists of a table.

    Args:
        path: a .parquet, .csv, .tsv or .jsonl file.
        scored: whether the scores count; else they are not read, and the order is that of the list or of ``rank``.

    Raises:
        UserError: the file can't be read, or has not the columns or types that are needed.
    """
    table = read_file(path)
    if ("items" in table.column_names) == ("item_id" in table.column_names):
        raise UserError(f"{path} has the columns {', '.join(table.column_names) or 'none'}; {FORMS}")
    return _wide(path, table, scored) if "items" in table.column_names else _long(path, table, scored)


def keys_of(path: Path, table: pa.Table) -> tuple[pa.Array, Int64s]:
    """Return user_id and position of each row.

    Raises:
        UserError: a column is missing, or a position is no whole number.
    """
    user = as_ids(_column(path, table, "user_id"), path, "user_id")
    return user, _whole_numbers(path, table, "position")


def _wide(path: Path, table: pa.Table, scored: bool) -> Listing:
    user, position = keys_of(path, table)
    rows = np.arange(1, table.num_rows + 1)
    items, offsets = _lists(path, table, "items")
    scores = None
    if scored:
        values, ends = _lists(path, table, "scores")
        uneven = np.flatnonzero(np.diff(ends) != np.diff(offsets))
        if len(uneven):
            at = uneven[0]
            counts = f"{offsets[at + 1] - offsets[at]} items and {ends[at + 1] - ends[at]} scores"
            raise UserError(f"{path}, row {at + 1}: {counts}; give each item its score")
        scores = _numbers(path, values, np.repeat(rows, np.diff(offsets)), "scores")
    ids = as_ids(pa.chunked_array([items]), path, "items")
    return Listing(path, user, position, offsets, ids, scores, rows, np.repeat(rows, np.diff(offsets)))


def _long(path: Path, table: pa.Table, scored: bool) -> Listing:
    user, position = keys_of(path, table)
    items = as_ids(_column(path, table, "item_id"), path, "item_id")
    rows = np.arange(1, table.num_rows + 1)
    scores = _numbers(path, plain(_column(path, table, "score")), rows, "score") if scored else None
    if scores is None or "rank" in table.column_names:
        order_by = _whole_numbers(path, table, "rank").astype(np.float64)
    else:
        order_by = -scores
    users = user.dictionary_encode().indices.fill_null(-1).to_numpy()
    order = np.lexsort((rows, order_by, position, users))
    first = np.flatnonzero(_differs(users[order]) | _differs(position[order]))
    offsets = np.append(first, len(order)).astype(np.int64)
    if "rank" in table.column_names:
        _refuse_gaps(path, order_by[order], offsets, rows[order])
    begin = np.minimum.reduceat(rows[order], first) if len(first) else rows
    return Listing(
        path=path,
        user=user.take(pa.array(begin - 1)),
        position=position[begin - 1],
        offsets=offsets,
        items=items.take(pa.array(order)),
        scores=None if scores is None else scores[order],
        rows=begin,
        entry_rows=rows[order],
    )


def _differs(values: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Return whether each value differs from the one before; the first does."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def _refuse_gaps(path: Path, rank: Float64s, offsets: Int64s, rows: Int64s) -> None:
    """Refuse ranks of a list that are not 1, 2, 3, ...: a row is missing or stands there twice."""
    expected = np.arange(len(rank)) - np.repeat(offsets[:-1], np.diff(offsets)) + 1
    wrong = np.flatnonzero(rank != expected)
    if len(wrong):
        at = wrong[0]
        raise UserError(
            f"{path}, row {rows[at]}: rank {rank[at]:.0f} where rank {expected[at]} of that user and position is due; "
            "the ranks of a list are 1, 2, 3, ... without gaps"
        )


def _column(path: Path, table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        hint = "" if name not in ("score", "scores") else ", or set scores: none, if only the order is to count"
        raise UserError(f"{path} has no column {name!r}, only {', '.join(table.column_names)}; add it{hint}")
    return table[name]


def _lists(path: Path, table: pa.Table, name: str) -> tuple[pa.Array, Int64s]:
    """Return the elements of a column of lists and their offsets; a missing list is an empty one."""
    values = plain(_column(path, table, name))
    kind = values.type
    if pa.types.is_fixed_size_list(kind):
        values = values.cast(pa.list_(kind.value_type))
    elif not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise UserError(f"{path}: column {name!r} has type {kind}, not lists; {FORMS}")
    lengths = pc.list_value_length(values).fill_null(0).to_numpy()
    return values.flatten(), np.append(0, np.cumsum(lengths)).astype(np.int64)


def _whole_numbers(path: Path, table: pa.Table, name: str) -> Int64s:
    values = as_ids(_column(path, table, name), path, name)
    if not pa.types.is_integer(values.type):
        whole = pc.match_substring_regex(values, r"^\s*-?[0-9]{1,18}\s*$").fill_null(False)
        trimmed = pc.utf8_trim_whitespace(values)
        values = pc.if_else(whole, trimmed, pa.scalar(None, trimmed.type)).cast(pa.int64())
    if values.null_count:
        row = pc.index(values.is_null(), True).as_py()
        raise UserError(f"{path}, row {row + 1}: {name} is {table[name][row].as_py()!r}, not a whole number")
    numbers: Int64s = values.to_numpy()
    return numbers


def _numbers(path: Path, values: pa.Array, rows: Int64s, name: str) -> Float64s:
    """Return values as float64 [M]; NaN where there is none, which is refused later with all that is no number."""
    try:
        numbers: Float64s = values.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    except pa.ArrowException:
        texts = values.to_pylist() if pa.types.is_large_string(values.type) or pa.types.is_string(values.type) else []
        bad = next((n for n, text in enumerate(texts) if not _is_number(text)), None)
        if bad is None:
            raise UserError(f"{path}: column {name!r} of type {values.type} holds no numbers") from None
        raise UserError(f"{path}, row {rows[bad]}: {name} is {texts[bad]!r}, not a number") from None
    return numbers


def _is_number(text: str | None) -> bool:
    try:
        float("nan" if text is None else text)
    except ValueError:
        return False
    return True
