"""Slices of sequences in random batches, and how they are read with as little padding as is worth a pass.

A batch must be a random draw of all sequences. Batches of sequences of like length are the cheapest to read, but each
is a biased estimate of the gradient, and a position of a short sequence, whose batch has few, counts many times what
one of a long sequence does: a SASRec trained so loses a tenth of its NDCG (benchmarks/README.md#batches). So batches
are random, and :func:`encoded` reads each in a few passes over sequences of like length.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ckd.storage.corpus import HELD_OUT, Corpus
from ckd.storage.errors import UserError

Int64s = npt.NDArray[np.int64]

_PASS_COST, _LAUNCH_COST = 128, 16_384
"""Positions whose reading takes as long as what every pass of a small network costs beside: on a CPU (measured with
SASRec and GRU4Rec of width 64), and on a device that is sent one small kernel after the other (estimated; batches of
the usual size are read whole there). Other values draw other dropout: ``RUN_FORMAT`` and ``TEACHER_FORMAT`` go up."""


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


def random_batches(n: int, batch_size: int, draw: np.random.Generator) -> list[Int64s]:
    """Return the rows 0 .. n - 1 in batches, each row exactly once; all batches but the last hold ``batch_size``."""
    order = draw.permutation(n)
    return [order[start : start + batch_size] for start in range(0, n, batch_size)]


def padded(sequence: npt.NDArray[np.int32], start: Int64s, length: Int64s) -> torch.Tensor:
    """Return the items of slices of a sequence, int64 [B, L], right-padded with code 0."""
    real = real_positions(length)
    codes = sequence[np.where(real, start[:, None] + np.arange(real.shape[1]), 0)]
    return torch.from_numpy(np.where(real, codes, 0).astype(np.int64))


def real_positions(length: Int64s) -> npt.NDArray[np.bool_]:
    """Return which positions of right-padded sequences are not padding, bool [B, L]."""
    return np.arange(int(length.max())) < length[:, None]


def length_groups(length: Int64s, per_pass: int) -> list[Int64s]:
    """Return the rows in groups to be read one after the other, each padded to its longest, at the least cost.

    A group costs its rows times its longest, padding included, and ``per_pass`` besides. Cheapest are groups of
    consecutive lengths, so the best partition is found exactly, by dynamic programming over the distinct lengths.

    Args:
        length: int64 [B], at least 1 each.
        per_pass: what a pass costs whatever its size, in positions.

    Returns:
        Row numbers, int64, of each group; shortest sequences first.
    """
    order = np.argsort(length, kind="stable")
    longest, count = np.unique(length, return_counts=True)
    below = np.concatenate([[0], np.cumsum(count)])
    cost, first = np.zeros(len(longest) + 1), np.zeros(len(longest) + 1, np.int64)
    for end in range(1, len(cost)):
        costs = cost[:end] + (below[end] - below[:end]) * longest[end - 1] + per_pass
        first[end] = costs.argmin()
        cost[end] = costs[first[end]]
    groups, end = [], len(longest)
    while end:
        groups.append(order[below[first[end]] : below[end]])
        end = first[end]
    return groups[::-1]


def pass_cost(device: torch.device) -> int:
    """Return what a pass of a small network costs whatever its size, in positions."""
    return _PASS_COST if device.type == "cpu" else _LAUNCH_COST


def encoded(encode: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, length: Int64s) -> torch.Tensor:
    """Return what an encoder makes of every position of some sequences, one sequence after the other, padding left out.

    Args:
        encode: int64 [b, l] -> [b, l, ...], where no position depends on padding behind it; called once or a few times.
        inputs: int64 [B, L], right-padded, on the encoder's device.
        length: int64 [B], of each row, at least 1.

    Returns:
        [sum(length), ...].
    """
    groups = length_groups(length, pass_cost(inputs.device))
    if len(groups) == 1:
        real = torch.from_numpy(real_positions(length)).to(inputs.device)
        return encode(inputs[:, : real.shape[1]])[real]
    parts = []
    for rows in groups:
        real = torch.from_numpy(real_positions(length[rows])).to(inputs.device)
        parts.append(encode(inputs[torch.from_numpy(rows).to(inputs.device), : real.shape[1]])[real])
    order = np.concatenate(groups)
    begins = np.cumsum(length) - length
    return reordered(torch.cat(parts), flat_index(begins[order], length[order]))


def reordered(values: torch.Tensor, place: Int64s) -> torch.Tensor:
    """Return the tensor whose row ``place[i]`` is ``values[i]``; ``place`` is a permutation, int64 [N]."""
    inverse = np.empty_like(place)
    inverse[place] = np.arange(len(place))
    return values.index_select(0, torch.from_numpy(inverse).to(values.device))


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
    codes = padded(corpus.sequence, corpus.offsets[users] + position - length, length)
    return codes, torch.from_numpy(length - 1)


def at(states: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return ``states[b, index[b]]`` of every row: [B, L, d], int64 [B] -> [B, d]."""
    return states[torch.arange(states.shape[0], device=states.device), index.to(states.device)]
