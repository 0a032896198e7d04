"""Who is recommended to: users of the corpus, or the histories of a file."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ckd.stages.identifiers import as_ids, blank_to_null, plain, same_type
from ckd.stages.tables import read_file
from ckd.stages.times import parse_times
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError

_AS_TIMES = "numbers, or dates as in 2024-02-29T01:02:03"
_NAMED = 3
"""Unknown users or items that a line names."""

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Audience:
    """Users with a history each.

    Attributes:
        corpus: the domain's items, and the sequences of these users.
        users: int32 [n], user codes of that corpus, in the order in which lists are made.
        known: whether they are the domain's own users.
        notes: what was left out, a line each.
    """

    corpus: Corpus
    users: npt.NDArray[np.int32]
    known: bool
    notes: tuple[str, ...] = ()


def everybody(corpus: Corpus) -> Audience:
    """Return all users of a domain."""
    return Audience(corpus, np.arange(corpus.n_users, dtype=np.int32), known=True)


def read_audience(path: Path, corpus: Corpus, domain: str, skip_unknown: bool) -> Audience:
    """Return those whom a file names.

    A file with the column ``items`` (a list of item IDs, oldest first) or ``item_id`` (a row per interaction; with a
    column ``timestamp`` in its order, else in that of the file) holds histories; any other names users of the domain.

    Args:
        path: Parquet, CSV, TSV or JSONL.
        corpus: the domain.
        domain: its name.
        skip_unknown: leave unknown users and items out.

    Raises:
        UserError: the file lacks ``user_id`` or one of its values, or names unknown users or items.
    """
    table = read_file(path)
    if "user_id" not in table.column_names:
        raise UserError(f"{path} has no column user_id; it has {', '.join(table.column_names)}")
    users = as_ids(table["user_id"], path, "user_id")
    _refuse_missing(users, path, "user_id")
    if "items" in table.column_names:
        return _from_lists(path, table, users, corpus, domain, skip_unknown)
    if "item_id" in table.column_names:
        return _from_rows(path, table, users, corpus, domain, skip_unknown)
    users = users.unique()
    codes, notes = _known(users, corpus.user_ids, path, ("user", "users"), domain, skip_unknown)
    return Audience(corpus, codes[codes >= 0].astype(np.int32), True, notes)


def _from_lists(
    path: Path, table: pa.Table, users: pa.Array, corpus: Corpus, domain: str, skip_unknown: bool
) -> Audience:
    column = plain(table["items"])
    if pa.types.is_fixed_size_list(column.type) or pa.types.is_list_view(column.type):
        column = column.cast(pa.large_list(column.type.value_type))
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise UserError(
            f"{path}: column 'items' of type {column.type} holds no lists; write Parquet or JSONL, or a row per "
            "interaction with the columns user_id and item_id"
        )
    if len(users.unique()) < len(users):
        raise UserError(f"{path} gives a user more than one list; keep one row per user_id")
    _refuse_missing(column, path, "items")
    owner = pc.list_parent_indices(column).to_numpy().astype(np.int64)
    items = as_ids(pa.chunked_array([pc.list_flatten(column)]), path, "items")
    return _histories(path, users, owner, items, corpus, domain, skip_unknown)


def _from_rows(
    path: Path, table: pa.Table, users: pa.Array, corpus: Corpus, domain: str, skip_unknown: bool
) -> Audience:
    coded = users.dictionary_encode()  # in order of first appearance
    owner = coded.indices.to_numpy().astype(np.int64)
    items = as_ids(table["item_id"], path, "item_id")
    order = np.argsort(owner, kind="stable")
    if "timestamp" in table.column_names:
        order = _in_time(table["timestamp"], owner, path)
    items = items.take(pa.array(order))
    return _histories(path, coded.dictionary, owner[order], items, corpus, domain, skip_unknown)


def _histories(
    path: Path, users: pa.Array, owner: Int64s, items: pa.Array, corpus: Corpus, domain: str, skip_unknown: bool
) -> Audience:
    """Return users with the items that each owns, which stand user by user, oldest first."""
    if items.null_count:
        raise UserError(f"{path} holds {items.null_count:,} items without an ID; give each one, or remove it")
    ids = corpus.items["item_id"].combine_chunks()
    codes, notes = _known(items, ids, path, ("item", "items"), domain, skip_unknown)
    owner, codes = owner[codes >= 0], codes[codes >= 0]
    counts = np.bincount(owner, minlength=len(users))
    if not skip_unknown and not counts.all():
        first = users[int(np.flatnonzero(counts == 0)[0])].as_py()
        raise UserError(f"{path}: the history of user {first!r} is empty; give it an item, or say --unknown skip")
    served = np.flatnonzero(counts)
    if len(served) < len(users):
        notes += (f"left out {len(users) - len(served):,} of {len(users):,} users whose histories are empty",)
    offsets = np.concatenate([[0], np.cumsum(counts[served])])
    own = users.take(pa.array(served))
    sequences = replace(corpus, user_ids=own, offsets=offsets, sequence=codes.astype(np.int32))
    return Audience(sequences, np.arange(len(own), dtype=np.int32), False, notes)


def _known(
    wanted: pa.Array, known: pa.Array, path: Path, nouns: tuple[str, str], domain: str, skip: bool
) -> tuple[Int64s, tuple[str, ...]]:
    """Return the place of each ID among the known ones, -1 where it is not, int64 [n], and a line about those."""
    left, right = same_type(wanted, plain(pa.chunked_array([known])))
    found = pc.fill_null(pc.index_in(left, value_set=right), -1).to_numpy().astype(np.int64)
    if (found >= 0).all():
        return found, ()
    missing = left.filter(pa.array(found < 0)).unique()
    distinct = len(left.unique())
    named = ", ".join(repr(value) for value in missing[:_NAMED].to_pylist())
    more = ", ..." if len(missing) > _NAMED else ""
    counted = f"{len(missing):,} of {distinct:,} {nouns[distinct > 1]}"
    what = f"{counted} in {path} that domain {domain} does not have: {named}{more}"
    if skip:
        return found, (f"left out {what}",)
    raise UserError(f"{what}; correct the file, or leave them out with --unknown skip")


def _in_time(column: pa.ChunkedArray, owner: Int64s, path: Path) -> Int64s:
    """Return the rows user by user, oldest first, int64 [n]; times are read as those of raw files are."""
    values = plain(column)
    values = blank_to_null(values) if pa.types.is_large_string(values.type) else values
    _refuse_missing(values, path, "timestamp")
    times = parse_times(values)
    if times is None:
        raise UserError(f"{path}: column 'timestamp' of type {values.type} holds no times; write {_AS_TIMES}")
    if not times.valid.all():
        row = int(np.flatnonzero(~times.valid)[0])
        raise UserError(f"{path}, row {row + 1}: timestamp {values[row].as_py()!r} is no time; write {_AS_TIMES}")
    return np.lexsort((times.fraction, times.whole, owner))


def _refuse_missing(values: pa.Array, path: Path, name: str) -> None:
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0]) + 1
        raise UserError(f"{path}, row {row}: no {name}; give one or remove the row")
