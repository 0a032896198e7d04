"""The prepared form of one domain: integer-coded items and sequences, plus the maps back.

``items.parquet`` has one row per item in order of code, ``sequences.parquet`` one row per user in order of user code.
Codes are the ranks of the identifiers, so they do not depend on the order of the raw files.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ckd.storage.artifact import Artifact
from ckd.storage.draft import Draft
from ckd.storage.folds import Fold, fold_of
from ckd.storage.parquet import read_table, write_table

ITEMS, SEQUENCES = "items.parquet", "sequences.parquet"
TEXT_FIELDS = ("title", "brand", "categories", "description")
SPLITS = ("train", "valid", "test")
HELD_OUT = 2
"""Interactions of each user that are never trained on: the validation and the test target."""
MIN_LENGTH = HELD_OUT + 1
"""Leave-one-out needs a history before them."""

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Positions:
    """Every labelled position of a run of users, sorted by (user, position).

    Attributes:
        user: int32 [N], user code.
        position: int32 [N], length of the history, from 1.
        split: int8 [N], index into :data:`SPLITS`.
        target: int32 [N], code of the item that followed.
    """

    user: Int32s
    position: Int32s
    split: npt.NDArray[np.int8]
    target: Int32s

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class Corpus:
    """One domain in memory.

    Attributes:
        key: key of the corpus artifact.
        items: one row per item: item (code), item_id, the text fields, popularity (training interactions).
        user_ids: arrow array [n_users], string or int64, in order of user code.
        offsets: int64 [n_users + 1]; user u's items are ``sequence[offsets[u]:offsets[u + 1]]``.
        sequence: int32 [interactions], item codes, oldest first within a user.
    """

    key: str
    items: pa.Table
    user_ids: pa.Array
    offsets: Int64s
    sequence: Int32s

    @property
    def n_items(self) -> int:
        """Items in the catalogue."""
        return int(self.items.num_rows)

    @property
    def n_users(self) -> int:
        """Users, each with one sequence."""
        return len(self.user_ids)

    @cached_property
    def lengths(self) -> Int64s:
        """Interactions per user, [n_users]."""
        return np.diff(self.offsets)

    @property
    def n_positions(self) -> int:
        """Positions that a teacher labels: one less than the interactions of each user."""
        return len(self.sequence) - self.n_users

    @cached_property
    def position_offsets(self) -> Int64s:
        """int64 [n_users + 1]: row of user u's first position when all positions are listed in order."""
        return self.offsets - np.arange(self.n_users + 1)

    def sequence_of(self, user: int) -> Int32s:
        """Return all item codes of one user, oldest first, a view."""
        return self.sequence[self.offsets[user] : self.offsets[user + 1]]

    def positions(self, first: int = 0, last: int | None = None) -> Positions:
        """Return all positions of the users ``first`` to ``last`` (exclusive; default: all)."""
        last = self.n_users if last is None else last
        counts = self.lengths[first:last] - 1
        user = np.repeat(np.arange(first, last, dtype=np.int32), counts)
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        position = (np.arange(len(user)) - starts + 1).astype(np.int32)
        target = self.sequence[self.offsets[user] + position]
        split = split_of(position, self.lengths[user])
        return Positions(user, position, split, target)

    def ranges(self, rows: int) -> Iterator[tuple[int, int]]:
        """Cut the users into consecutive ranges of about ``rows`` positions each: the label shards.

        A user belongs to the range in which the user's first position falls, so the cut depends on the corpus
        and ``rows`` only, never on who does the work.
        """
        shard = self.position_offsets[:-1] // rows
        edges = np.flatnonzero(np.diff(shard)) + 1
        yield from zip([0, *edges.tolist()], [*edges.tolist(), self.n_users], strict=True)

    def folds(self, of: int) -> Int32s:
        """Return the number of each user's fold, int32 [n_users]; see :func:`ckd.storage.folds.fold_of`."""
        return np.fromiter((fold_of(user, of) for user in self.user_ids.to_pylist()), np.int32, self.n_users)

    def outside(self, fold: Fold) -> "Corpus":
        """Return the domain as if the users of a fold had never been: what the fold's teacher is adapted on.

        The catalogue stays whole and keeps its codes; popularity counts the interactions of the users who are left.
        """
        left = self._of_users(np.flatnonzero(self.folds(fold.of) != fold.number))
        popularity = training_popularity(left.sequence, left.lengths, self.n_items)
        column = self.items.column_names.index("popularity")
        items = self.items.set_column(column, "popularity", pa.array(popularity))
        return replace(left, items=items)

    def inside(self, fold: Fold) -> "Corpus":
        """Return the users of a fold, in order, and the items as :meth:`outside` has them: whom its teacher labels."""
        users = np.flatnonzero(self.folds(fold.of) == fold.number)
        return replace(self._of_users(users), items=self.outside(fold).items)

    def _of_users(self, users: Int64s) -> "Corpus":
        kept = np.zeros(self.n_users, bool)
        kept[users] = True
        return replace(
            self,
            user_ids=self.user_ids.take(pa.array(users)),
            offsets=np.concatenate([[0], np.cumsum(self.lengths[users])]).astype(np.int64),
            sequence=self.sequence[np.repeat(kept, self.lengths)],
        )


def training_popularity(sequence: Int32s, lengths: Int64s, n_items: int) -> Int32s:
    """Count each item's interactions in training, int32 [n_items]: all but the last two of each user.

    Args:
        sequence: int32 [interactions], item codes, user after user.
        lengths: int64 [n_users], interactions of each.
        n_items: size of the catalogue.
    """
    ends = np.cumsum(lengths)
    trained = np.arange(len(sequence)) < np.repeat(ends - HELD_OUT, lengths)
    return np.bincount(sequence[trained], minlength=n_items).astype(np.int32)


def split_of(position: npt.NDArray[np.integer], length: npt.NDArray[np.integer]) -> npt.NDArray[np.int8]:
    """Return the split of each position: leave-one-out, last target test, the one before it validation.

    Args:
        position: length of the history, from 1 to ``length - 1``.
        length: number of items in the whole sequence.
    """
    return np.clip(position - length + 3, 0, 2).astype(np.int8)


def write_corpus(draft: Draft, items: pa.Table, sequences: pa.Table) -> None:
    """Add the two files of a corpus to a draft; see the module's text for their columns."""
    draft.add(ITEMS, lambda path: write_table(items, path), rows=items.num_rows)
    draft.add(SEQUENCES, lambda path: write_table(sequences, path), rows=sequences.num_rows)


def read_corpus(artifact: Artifact) -> Corpus:
    """Load a corpus into memory.

    Raises:
        DamagedArtifact: a file's bytes differ from what was written.
    """
    items = read_table(artifact.verified(ITEMS))
    sequences = read_table(artifact.verified(SEQUENCES))
    lists = sequences["items"].combine_chunks()
    return Corpus(
        key=artifact.key,
        items=items,
        user_ids=sequences["user_id"].combine_chunks(),
        offsets=lists.offsets.to_numpy().astype(np.int64),
        sequence=lists.flatten().to_numpy().astype(np.int32, copy=False),
    )
