"""Usable rows to the two tables of a corpus: the core, the codes, the chronological order."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ckd.stages.prepare.core import k_core
from ckd.stages.prepare.raw import RawDomain
from ckd.storage.corpus import MIN_LENGTH, TEXT_FIELDS, training_popularity

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BuiltCorpus:
    """The tables of a corpus, as :func:`ckd.storage.corpus.write_corpus` takes them, and what went into them.

    Attributes:
        items: item int32, item_id string or int64, the text fields string, popularity int32.
        sequences: user_id string or int64, items list<int32>, timestamps list<int64>; row = user code.
        core: users, items and interactions in the k-core, before short sequences were dropped.
    """

    items: pa.Table
    sequences: pa.Table
    core: dict[str, int]


def build_corpus(raw: RawDomain, k: int) -> BuiltCorpus:
    """Keep the k-core, code users and items by the rank of their identifiers, order each user's interactions.

    Interactions at the same time keep the order of the file. Users with fewer than ``MIN_LENGTH``
    interactions, which only a smaller ``k`` leaves, are dropped in a second pass, and with them whatever then
    falls out of the core.
    """
    core = k_core(raw.user, raw.item, k)
    rows = np.flatnonzero(core)
    rows = rows[k_core(raw.user[rows], raw.item[rows], k, user_k=max(k, MIN_LENGTH))]
    user, user_rows = _codes(raw.user[rows], raw.user_ids)
    item, item_rows = _codes(raw.item[rows], raw.items["item_id"].combine_chunks())

    # lexsort is stable, and its last key is the first to be compared.
    order = np.lexsort((raw.fraction[rows], raw.whole[rows], user))
    lengths = np.bincount(user, minlength=len(user_rows))
    sequence = item[order].astype(np.int32)
    return BuiltCorpus(
        items=_items_table(raw.items.take(item_rows), training_popularity(sequence, lengths, len(item_rows))),
        sequences=_sequences_table(raw.user_ids.take(user_rows), lengths, sequence, raw.whole[rows][order]),
        core=counts(raw.user[core], raw.item[core]),
    )


def counts(user: Int64s, item: Int64s) -> dict[str, int]:
    """Return the numbers of users, items and interactions, from the codes [N] of each interaction."""
    return {
        "users": int(np.count_nonzero(np.bincount(user))) if len(user) else 0,
        "items": int(np.count_nonzero(np.bincount(item))) if len(item) else 0,
        "interactions": len(user),
    }


def _codes(rows: Int64s, ids: pa.Array) -> tuple[Int64s, pa.Array]:
    """Return the codes [N] of the identifiers at ``rows`` [N], and the row of ``ids`` for each code.

    Strings are ranked by their bytes, integers by value.
    """
    by_rank = pc.sort_indices(ids).to_numpy().astype(np.int64)
    used = np.bincount(rows, minlength=len(ids))[by_rank] > 0
    code_of_row = np.empty(len(ids), dtype=np.int64)
    code_of_row[by_rank] = np.cumsum(used) - 1
    return code_of_row[rows], pa.array(by_rank[used])


def _items_table(items: pa.Table, popularity: npt.NDArray[np.int32]) -> pa.Table:
    texts = {name: items[name].cast(pa.string()) for name in TEXT_FIELDS}
    codes = np.arange(items.num_rows, dtype=np.int32)
    return pa.table(
        {
            "item": pa.array(codes),
            "item_id": _ids(items["item_id"]),
            **texts,
            "popularity": pa.array(popularity),
        }
    )


def _sequences_table(
    user_ids: pa.Array, lengths: Int64s, sequence: npt.NDArray[np.int32], timestamps: Int64s
) -> pa.Table:
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    return pa.table(
        {
            "user_id": _ids(user_ids),
            "items": pa.ListArray.from_arrays(offsets, pa.array(sequence)),
            "timestamps": pa.ListArray.from_arrays(offsets, pa.array(timestamps)),
        }
    )


def _ids(ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return ids if pa.types.is_integer(ids.type) else ids.cast(pa.string())
