"""Scores of the whole catalogue, held at once."""

from functools import cached_property

import torch
from torch import Tensor

from ckd.stages.students.contract import Scores


class FullScores(Scores):
    """Scores of every item at N positions, which may share rows.

    Args:
        logits: float [R, n_items].
        row: int64 [N], row of ``logits`` at each position; None where each has its own, in order.
    """

    def __init__(self, logits: Tensor, row: Tensor | None = None) -> None:
        self._given = logits
        self._row = row

    @property
    def _logits(self) -> Tensor:
        return self._given

    @cached_property
    def logsumexp(self) -> Tensor:
        """float [N]."""
        return self._at_positions(self._logits.logsumexp(1))

    def of(self, items: Tensor) -> Tensor:
        """int64 [N, m] -> float [N, m]."""
        if self._row is None:
            return self._logits.gather(1, items)
        return self._logits[self._row.unsqueeze(1), items]

    def among(self, items: Tensor) -> Tensor:
        """int64 [U] -> float [N, U]."""
        return self._at_positions(self._logits[:, items])

    def normaliser(self, items: Tensor, own: Tensor) -> Tensor:
        """Return ``logsumexp``: all items are exact."""
        return self.logsumexp

    def best(self, m: int) -> Tensor:
        """Return int64 [N, min(m, n_items)], best first; which of equal items comes first is not said."""
        return self._at_positions(self._logits.detach().topk(min(m, self._logits.shape[1]), dim=1).indices)

    def rows(self, chosen: Tensor | slice) -> "FullScores":
        """Bool [N], int64 [M] or a slice -> the scores at these positions."""
        row = torch.arange(len(self._logits), device=self._logits.device) if self._row is None else self._row
        return FullScores(self._logits, row[chosen])

    def _at_positions(self, values: Tensor) -> Tensor:
        return values if self._row is None else values[self._row]


class DotScores(FullScores):
    """The same of dot products, which are not computed before somebody asks for them.

    A loss whose gradient is known in closed form never does (:mod:`ckd.stages.distill.fused`).

    Args:
        states: float [N, d], the query at each position.
        items: float [n_items, d].
    """

    def __init__(self, states: Tensor, items: Tensor) -> None:
        self.states, self.items = states, items
        self._row = None

    @cached_property
    def _logits(self) -> Tensor:
        return self.states @ self.items.T
