"""Soft labels on disk and in memory: one row per (user, position), one artifact per (teacher, domain).

A label artifact holds ``part-00000.parquet ...`` (the label rows, sorted by user and position, a fixed range of the
corpus each) and ``vectors.parquet`` (the teacher's item vectors, if it has any). To the stored precision,
``raw score = logprob + logsumexp`` for stored items and ``state . vector`` for every other one; of ranked lists, which
have no vectors, every other one has an equal share of what is not kept.

Labels out of fold say so in their facts. Those of a training position are from the teacher of the user's fold, whose
vectors are ``vectors-fold-<number>.parquet``; all others, and ``vectors.parquet``, from the teacher of all users.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ckd.storage.artifact import Artifact, Receipt
from ckd.storage.corpus import SPLITS, Corpus
from ckd.storage.draft import Draft
from ckd.storage.errors import DamagedArtifact
from ckd.storage.parquet import number_bytes, read_groups, read_table, write_table
from ckd.storage.rounding import COARSEST
from ckd.storage.scratch import Columns, spilled
from ckd.storage.vectors import fixed_lists, matrix

ROW_GROUP = 4_096
"""Rows per Parquet row group: about 0.4 M pairs at k = 100, right for scans and for random groups."""

REST, UNIFORM = "rest", "uniform"
"""Fact of labels without states, and its value: every item that is not stored is as probable as any other such."""
LISTED_WITHIN = "listed_within"
"""Fact beside it: items stored per position from which on that holds at every position."""
UNLISTED_FIRST = "unlisted_first"
"""Fact beside it: positions at which unlisted items are more probable than a listed one."""

FOLDS = "folds"
"""Fact of labels out of fold: how many folds there are."""

_LEAST = 1e-12
_SCALARS = ("position", "logsumexp", "kept_mass", "target_logprob", "target_rank", "entropy")
_WIDE = ("items", "logprobs", "state")

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class LabelBlock:
    """Labels of N consecutive positions.

    Attributes:
        user: int32 [N], user code of the corpus.
        position: int32 [N], length of the history.
        split: int8 [N], index into ``SPLITS``.
        target: int32 [N], code of the item that followed.
        items: int32 [N, k], catalogue codes, best first.
        logprobs: float32 [N, k], log-softmax over the whole catalogue at temperature 1.
        logsumexp: float32 [N], log-normaliser of the raw scores.
        kept_mass: float32 [N], probability that the k items hold.
        target_logprob: float32 [N], log-probability of the target.
        target_rank: int32 [N], rank of the target, 1 is best, ties broken by item code.
        entropy: float32 [N], of the full distribution, in nats.
        state: float32 [N, d] or None, the teacher's query vector: ``state . item vector`` is the raw score.
    """

    user: Ints
    position: Ints
    split: npt.NDArray[np.int8]
    target: Ints
    items: Ints
    logprobs: Floats
    logsumexp: Floats
    kept_mass: Floats
    target_logprob: Floats
    target_rank: Ints
    entropy: Floats
    state: Floats | None

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: npt.NDArray[np.int64]) -> "LabelBlock":
        """Return the labels of some rows, in their order."""
        columns: dict[str, Any] = {name: column for name, column in vars(self).items() if column is not None}
        taken: dict[str, Any] = {name: column[rows] for name, column in columns.items()}
        return LabelBlock(**{"state": None, **taken})

    @property
    def k(self) -> int:
        """Stored items per position."""
        return int(self.items.shape[1])


def joined(blocks: Iterable[LabelBlock]) -> LabelBlock:
    """Return the labels of several blocks, at least one, as one, in memory."""
    every = list(blocks)
    # Nobody knows how many items those without rows would store.
    full = [block for block in every if len(block)] or every[:1]
    if len(full) == 1:
        return full[0]
    columns = [name for name, column in vars(full[0]).items() if column is not None]
    whole: dict[str, Any] = {name: np.concatenate([vars(block)[name] for block in full]) for name in columns}
    return LabelBlock(**{"state": None, **whole})


def streamed(blocks: Iterable[LabelBlock], folder: Path) -> LabelBlock:
    """Return the same as :func:`joined`, bit for bit, with items, logprobs and states left on the disk.

    Args:
        blocks: read one at a time.
        folder: of the file; see :func:`ckd.storage.scratch.spilled`.

    Raises:
        UserError: the file cannot be written.
    """
    rest = []

    def wide() -> Iterator[Columns]:
        for block in blocks:
            rest.append(replace(block, **_no_lists(len(block))))
            yield {name: vars(block)[name] for name in _WIDE if vars(block)[name] is not None}

    columns: dict[str, Any] = spilled(wide(), folder)
    return replace(joined(rest), **columns)


def in_order(blocks: Sequence[LabelBlock]) -> LabelBlock:
    """Return the labels of several blocks, at least one, as one, sorted by user and position."""
    whole = joined(blocks)
    return whole.take(np.lexsort((whole.position, whole.user)))


def part_name(number: int) -> str:
    """Return the file name of one shard."""
    return f"part-{number:05d}.parquet"


def write_part(draft: Draft, number: int, block: LabelBlock, corpus: Corpus, facts: Mapping[str, Any]) -> Receipt:
    """Write one shard; ``facts`` go into its receipt."""
    table = _as_table(block, corpus)
    return draft.add(part_name(number), lambda path: write_table(table, path, ROW_GROUP), table.num_rows, facts)


def part_names(artifact: Artifact) -> list[str]:
    """Return the shard names of a label artifact, in order."""
    return [name for name in artifact.files if name.startswith("part-")]


def read_labels(artifact: Artifact, corpus: Corpus, columns: Sequence[str] | None = None) -> LabelBlock:
    """Load all labels of one (teacher, domain) into memory; arguments and errors of :func:`label_blocks`."""
    return joined(label_blocks(artifact, corpus, columns))


def label_blocks(artifact: Artifact, corpus: Corpus, columns: Sequence[str] | None = None) -> Iterator[LabelBlock]:
    """Yield the labels of one (teacher, domain) in order: a row group at a time, at least one block.

    Only the columns that hold one value per label are in memory as a whole. Users are matched by identifier, never by
    row number, so a teacher may lack positions.

    Args:
        artifact: the label artifact.
        corpus: the corpus that it labels.
        columns: optional subset of ``items``, ``logprobs`` and ``state`` to load; the others are left empty.

    Raises:
        DamagedArtifact: a file's bytes differ from what was written, or a user or target is not in the corpus.
    """
    wide = list(_WIDE if columns is None else columns)
    every = _without_lists(artifact, corpus)
    first = 0
    if wide:
        for name in part_names(artifact):
            # Beside the wide columns one that is always there, and tells how many rows there are.
            for table in read_groups(artifact.local(name), ["position", *wide]):
                if table.num_rows:
                    block = every.take(np.arange(first, first + table.num_rows))
                    yield replace(block, **_lists_of(table))
                    first += table.num_rows
    if not first:
        yield every


def memory_of(artifact: Artifact, columns: Sequence[str]) -> int:
    """Return the bytes that some of ``items``, ``logprobs`` and ``state`` take in memory; from the files' footers."""
    return sum(number_bytes(artifact.local(name), columns) for name in part_names(artifact))


def _without_lists(artifact: Artifact, corpus: Corpus) -> LabelBlock:
    """Load the columns that hold one value per label, after a look at every byte of the files."""
    wanted = ["user_id", "split", "target", *_SCALARS]
    table = pa.concat_tables([read_table(artifact.verified(name), wanted) for name in part_names(artifact)])
    user = pc.index_in(table["user_id"], value_set=corpus.user_ids)
    if user.null_count:
        raise DamagedArtifact(f"{artifact.path} holds labels of users that are not in corpus {corpus.key[:16]}")
    split = pc.index_in(table["split"], value_set=pa.array(SPLITS))
    target = pc.index_in(table["target"], value_set=corpus.items["item_id"].combine_chunks())
    if target.null_count:
        raise DamagedArtifact(f"{artifact.path} holds targets that are not in corpus {corpus.key[:16]}")
    return LabelBlock(
        user=user.to_numpy().astype(np.int32),
        split=split.to_numpy().astype(np.int8),
        target=target.to_numpy().astype(np.int32),
        **_no_lists(table.num_rows),
        **{name: table[name].to_numpy() for name in _SCALARS},
    )


def _no_lists(rows: int) -> dict[str, Any]:
    # New ones: a view of no columns would keep all of them in memory.
    return {"items": np.empty((rows, 0), np.int32), "logprobs": np.empty((rows, 0), np.float32), "state": None}


def _lists_of(table: pa.Table) -> dict[str, Any]:
    return {name: matrix(table[name]) for name in _WIDE if name in table.column_names}


def tells_the_rest(artifact: Artifact, block: LabelBlock) -> bool:
    """Return whether all items that are not stored are equally probable: every listed one is stored."""
    return _from_lists(artifact, block) and bool(artifact.facts[LISTED_WITHIN] <= block.k)


def rest_logprob(artifact: Artifact, block: LabelBlock, n_items: int) -> Floats | None:
    """Return the log-probability of each item that is not stored, float32 [N], where it is one for all such items.

    Args:
        artifact: whose facts say whether it is; without that, None is returned.
        block: its labels.
        n_items: size of the catalogue.
    """
    if not tells_the_rest(artifact, block):
        return None
    # What is not stored is no more probable than what is, and of a small rest, float32 kept mass knows little.
    return np.minimum(_share(block, n_items), block.logprobs[:, -1]).astype(np.float32)


def above_the_rest(artifact: Artifact, block: LabelBlock, n_items: int) -> npt.NDArray[np.bool_]:
    """Return which stored items surely stand above all that are not stored, bool [N, k].

    Several that are as probable as the last one may be the first of many more that are cut off. Of ranked lists it is
    known what is not listed, also where a list shorter than k is filled up with it: what is no more probable than
    that, to the stored precision.
    """
    if _from_lists(artifact, block):
        share = _share(block, n_items)
        # No share of several equal ones is above 1/2, so the margin is wider than what any rounding moves.
        above = block.logprobs > (share + COARSEST * np.abs(share))[:, None]
        if artifact.facts[LISTED_WITHIN] <= block.k:
            return np.asarray(above)
    else:
        above = np.ones_like(block.logprobs, dtype=bool)
    last = block.logprobs == block.logprobs[:, -1:]
    return np.asarray(above & (~last | (last.sum(1, keepdims=True) == 1)))


def out_of_order(artifact: Artifact, block: LabelBlock, n_items: int) -> bool:
    """Return whether unlisted items may stand before listed ones that are not stored."""
    return _from_lists(artifact, block) and bool(artifact.facts.get(UNLISTED_FIRST)) and block.k < n_items


def _from_lists(artifact: Artifact, block: LabelBlock) -> bool:
    return artifact.facts.get(REST) == UNIFORM and block.k > 0


def _share(block: LabelBlock, n_items: int) -> npt.NDArray[np.float64]:
    """Return the log of an equal share of what is not kept, float64 [N]."""
    others = max(n_items - block.k, 1)
    return np.asarray(np.log(np.maximum(1 - block.kept_mass.astype(np.float64), _LEAST) / others))


def fold_of_rows(artifact: Artifact, block: LabelBlock, corpus: Corpus) -> Ints | None:
    """Return the number of the fold whose teacher gave each label, int32 [N], 0 for the teacher of all users.

    Args:
        artifact: whose facts say how many folds there are; without that, None is returned.
        block: its labels.
        corpus: that it labels.
    """
    folds = artifact.facts.get(FOLDS)
    if folds is None:
        return None
    return np.where(block.split == SPLITS.index("train"), corpus.folds(folds)[block.user], 0).astype(np.int32)


def _as_table(block: LabelBlock, corpus: Corpus) -> pa.Table:
    columns = {
        "user_id": corpus.user_ids.take(pa.array(block.user)),
        "position": pa.array(block.position),
        "split": pa.array(SPLITS).take(pa.array(block.split)),
        "target": corpus.items["item_id"].combine_chunks().take(pa.array(block.target)),
        "items": _lists(block.items),
        "logprobs": _lists(block.logprobs),
        "logsumexp": pa.array(block.logsumexp),
        "kept_mass": pa.array(block.kept_mass),
        "target_logprob": pa.array(block.target_logprob),
        "target_rank": pa.array(block.target_rank),
        "entropy": pa.array(block.entropy),
    }
    if block.state is not None:
        columns["state"] = fixed_lists(block.state)
    return pa.table(columns)


def _lists(matrix: npt.NDArray[Any]) -> pa.ListArray:
    offsets = np.arange(0, matrix.size + 1, max(matrix.shape[1], 1), dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(matrix).ravel()))
