"""Scores of pairs, computed when they are asked for, with a normaliser that is estimated from sampled negatives.

With S a uniform sample of m of a catalogue's n items, drawn without replacement, every item is in S with probability
m/n. So Z = sum_v exp(s_v) over the catalogue has the unbiased estimate (n/m) sum_{v in S} exp(s_v) (Horvitz and
Thompson 1952). Where the scores of some items G are known anyway - the target, the teacher's - only the rest of Z has
to be estimated, from the negatives that are not among them:

    Z ~ sum_{v in G} exp(s_v) + (n/m) sum_{v in S without G} exp(s_v)

unbiased again, of less variance, and no less than the known part, so that what the given items leave over of all
probability is never negative. The logarithm of an estimate is too low on average (Jensen), by about half its relative
variance. With m = n everything is exact. Sampled softmax with its correction: arXiv 2201.02327, section 2.
"""

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ckd.stages.students.contract import Scores


class Pairing(Protocol):
    """How a context and an item, each a vector, become a score."""

    def pairs(self, contexts: Tensor, items: Tensor) -> Tensor:
        """Score m items of each context: float [N, c] and [N, m, v] -> [N, m]."""

    def cross(self, contexts: Tensor, items: Tensor) -> Tensor:
        """Score every item at every context: float [N, c] and [U, v] -> [N, U]."""


class SampledScores(Scores):
    """Scores at N positions of those items that are asked for, and of a sample that all positions share.

    Args:
        pairing: of the student.
        contexts: float [N, c].
        items: float [n_items, v].
        sample: int64 [m], distinct items drawn uniformly.
        sampled: float [N, m], their scores; computed where they are not given.
    """

    def __init__(
        self, pairing: Pairing, contexts: Tensor, items: Tensor, sample: Tensor, sampled: Tensor | None = None
    ) -> None:
        self._pairing = pairing
        self._contexts = contexts
        self._items = items
        self._sample = sample
        self._sampled = pairing.cross(contexts, items[sample]) if sampled is None else sampled
        self._log_weight = math.log(len(items) / len(sample))

    @property
    def logsumexp(self) -> Tensor:
        """float [N], estimated from the sample alone."""
        return self._sampled.logsumexp(1) + self._log_weight

    def of(self, items: Tensor) -> Tensor:
        """int64 [N, m] -> float [N, m]."""
        return self._pairing.pairs(self._contexts, self._items[items])

    def among(self, items: Tensor) -> Tensor:
        """int64 [U] -> float [N, U]."""
        return self._pairing.cross(self._contexts, self._items[items])

    def normaliser(self, items: Tensor, own: Tensor) -> Tensor:
        """Return float [N]: the given items exact, the rest estimated from the negatives that are not among them.

        Args:
            items: int64 [N, k].
            own: float [N, k], their scores; minus infinity where an item stands in its row already.
        """
        rest = self._sampled.masked_fill(self._given(items), -torch.inf).logsumexp(1) + self._log_weight
        return torch.logaddexp(own.logsumexp(1), rest)

    def best(self, m: int) -> Tensor:
        """Return the best of the sample, int64 [N, min(m, sampled)], best first."""
        return self._sample[self._sampled.detach().topk(min(m, len(self._sample)), dim=1).indices]

    def rows(self, chosen: Tensor | slice) -> "SampledScores":
        """Bool [N], int64 [M] or a slice -> the scores at these positions, of the same sample."""
        return SampledScores(self._pairing, self._contexts[chosen], self._items, self._sample, self._sampled[chosen])

    def _given(self, items: Tensor) -> Tensor:
        """Return which negatives each position's items hold, int64 [N, k] -> bool [N, m]."""
        beyond = len(self._sample)
        column = torch.full((len(self._items),), beyond, device=items.device)
        column[self._sample] = torch.arange(beyond, device=items.device)
        given = torch.zeros(len(items), beyond + 1, dtype=torch.bool, device=items.device)
        return given.scatter_(1, column[items], True)[:, :beyond]


def uniform_sample(n_items: int, size: int, draw: np.random.Generator) -> Tensor:
    """Return distinct items, int64 [size]; of a catalogue that is no larger, all of it in order."""
    if size >= n_items:
        return torch.arange(n_items)
    return torch.from_numpy(draw.choice(n_items, size, replace=False, shuffle=False))
