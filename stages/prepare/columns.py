"""From the columns of a raw file to ours: names, types of identifiers, text of texts."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ckd.stages.identifiers import as_string, blank_to_null, plain
from ckd.stages.masks import as_bools
from ckd.storage.corpus import TEXT_FIELDS
from ckd.storage.errors import UserError

ITEM_COLUMNS = ("item_id", *TEXT_FIELDS)
INTERACTION_COLUMNS = ("user_id", "item_id", "timestamp")
SEPARATORS = {"categories": ", "}
"""What joins the strings of a list in a text field; a space in the fields that are not named."""


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


def as_text(column: pa.ChunkedArray, path: Path, name: str) -> pa.Array:
    """Return a text field as string, null where missing or blank; the strings of a list are joined.

    Raises:
        UserError: the column's type has no text.
    """
    values = plain(column)
    if _is_list(values.type):
        values = _joined(values, SEPARATORS.get(name, " "), path, name)
    return blank_to_null(as_string(values, path, name))


def _joined(values: pa.Array, separator: str, path: Path, name: str) -> pa.Array:
    """Join the strings of each list, of nested lists too, without the blank ones."""
    rows = len(values)
    parents: npt.NDArray[np.int64] = np.arange(rows)
    while _is_list(values.type):
        parents = parents[pc.list_parent_indices(values).to_numpy()]
        values = pc.list_flatten(values)
    words = blank_to_null(as_string(values, path, name))
    there = as_bools(words.is_valid())
    offsets = np.concatenate([[0], np.cumsum(np.bincount(parents[there], minlength=rows))])
    lists = pa.LargeListArray.from_arrays(pa.array(offsets.astype(np.int64)), words.drop_null())
    return pc.binary_join(lists, pa.scalar(separator, words.type))


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _nearest(name: str, names: Sequence[str]) -> str:
    by_lower = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return f"; nearest: {by_lower[close[0]]!r}" if close else ""
