"""Slices of sequences in batches of nearly equal length, so that hardly any work is done on padding."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ckd.storage.corpus import HELD_OUT, Corpus
from ckd.storage.errors import UserError

Int64s = npt.NDArray[np.int64]

_POOL = 50
"""Batches' worth of shuffled sequences that are sorted by length together: enough to leave little padding, few
enough to keep who shares a batch with whom random."""


@dataclass(frozen=True)
class TrainingWindows:
    """One slice per sequence: input items ``start .. start + length - 1``, targets one further on.

    Attributes:
        user: int32 [S], user code.
        start: int64 [S], first input item in ``Corpus.sequence``.
        length: int64 [S], inputs, at least 1 and at most ``max_length``.
        position: int64 [S], history length at the first input (1 unless the sequence was cut).
    """

    user: npt.NDArray[np.int32]
    start: Int64s
    length: Int64s
    position: Int64s

    def take(self, rows: Int64s) -> "TrainingWindows":
        """Return some of the slices, in this order."""
        return TrainingWindows(self.user[rows], self.start[rows], self.length[rows], self.position[rows])

    def places(self, corpus: Corpus) -> Int64s:
        """Return the index of every position of the slices among all positions of the corpus, int64 [sum(length)]."""
        return flat_index(corpus.position_offsets[self.user] + self.position - 1, self.length)

    def held(self, corpus: Corpus) -> npt.NDArray[np.bool_]:
        """Return which of all positions of the corpus the slices hold, bool [n_positions]."""
        held = np.zeros(corpus.n_positions, bool)
        held[self.places(corpus)] = True
        return held

    def targets(self, corpus: Corpus) -> Int64s:
        """Return the item that follows each of these positions, int64 [sum(length)]."""
        return corpus.sequence[flat_index(self.start + 1, self.length)].astype(np.int64)


def training_windows(corpus: Corpus, max_length: int, held_out: int = HELD_OUT) -> TrainingWindows:
    """Return the last ``max_length`` training positions of every sequence that has any.

    Args:
        corpus: the domain.
        max_length: inputs that the network can see.
        held_out: items at the end that are never touched: for a target domain its validation and test targets,
            0 for a source domain.

    Raises:
        UserError: no sequence has any.
    """
    inputs = corpus.lengths - held_out - 1
    user = np.flatnonzero(inputs > 0)
    if not len(user):
        raise UserError(
            f"nothing to train on: no user of corpus {corpus.key[:16]} has more than {held_out + 1} interactions"
            f"{', and the last two of each user are held out' if held_out else ''}; add longer sequences"
        )
    length = np.minimum(inputs[user], max_length)
    skipped = inputs[user] - length
    return TrainingWindows(user.astype(np.int32), corpus.offsets[user] + skipped, length, skipped + 1)


def length_buckets(length: Int64s, batch_size: int, draw: np.random.Generator) -> list[Int64s]:
    """Return shuffled batches of row numbers; rows of a batch are of nearly equal length.

    Every row comes exactly once; all batches but a few hold ``batch_size`` rows.
    """
    order = draw.permutation(len(length))
    batches = []
    for start in range(0, len(order), _POOL * batch_size):
        pool = order[start : start + _POOL * batch_size]
        pool = pool[np.argsort(length[pool], kind="stable")]
        batches += [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
    draw.shuffle(batches)
    return batches


def padded(
    sequence: npt.NDArray[np.int32], start: Int64s, length: Int64s
) -> tuple[torch.Tensor, npt.NDArray[np.bool_]]:
    """Return item codes int64 [B, L], right-padded with code 0, and the mask [B, L] of real ones."""
    index = np.arange(int(length.max()))
    real = index < length[:, None]
    codes = sequence[np.where(real, start[:, None] + index, 0)]
    return torch.from_numpy(np.where(real, codes, 0).astype(np.int64)), real


def flat_index(start: Int64s, length: Int64s) -> Int64s:
    """Return ``start[0], start[0] + 1, ...`` of all slices one after the other, int64 [sum(length)]."""
    begins = np.cumsum(length) - length
    return np.arange(int(length.sum())) + np.repeat(start - begins, length)


def histories(
    corpus: Corpus, users: npt.NDArray[np.int32], position: npt.NDArray[np.int32], max_length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the last ``max_length`` items of each user's first ``position`` items, and where each one ends.

    Codes int64 [B, L], right-padded, oldest first; ends int64 [B], index of the last item.
    """
    length = np.minimum(position, max_length).astype(np.int64)
    codes, _ = padded(corpus.sequence, corpus.offsets[users] + position - length, length)
    return codes, torch.from_numpy(length - 1)


def at(encoded: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return ``encoded[b, index[b]]`` of every row: [B, L, d], int64 [B] -> [B, d]."""
    return encoded[torch.arange(encoded.shape[0], device=encoded.device), index.to(encoded.device)]
