"""What `ckd distill` asks of a student, and of the scores that it gives."""

from typing import Protocol

from torch import Tensor


class SequenceStudent(Protocol):
    """A ``torch.nn.Module`` that turns item histories into vectors; the score of an item is a dot product.

    Attributes:
        max_length: items of a history that are seen, the last ones.
    """

    max_length: int

    def encode(self, items: Tensor) -> Tensor:
        """int64 [B, L] item codes, oldest first, right-padded with anything -> float [B, L, d].

        The vector at index t stands for the history of the first t + 1 items. ``L`` is at most ``max_length``.
        """

    def item_vectors(self) -> Tensor:
        """Return float [n_items, d], row = item code."""


class Scores(Protocol):
    """A student's scores at N positions; gradients flow through all of them. They need not be held at once."""

    @property
    def logsumexp(self) -> Tensor:
        """Return float [N], over the scores of the whole catalogue."""

    def of(self, items: Tensor) -> Tensor:
        """Items of each position: int64 [N, m] -> float [N, m]."""

    def among(self, items: Tensor) -> Tensor:
        """Items that are the same at all positions: int64 [U] -> float [N, U]."""

    def best(self, m: int) -> Tensor:
        """Return the m items that score highest now, int64 [N, m], best first; all, if the catalogue is smaller."""

    def rows(self, chosen: Tensor | slice) -> "Scores":
        """Return the scores at some positions: bool [N], int64 [M] or a slice."""
