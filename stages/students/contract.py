"""What `ckd distill` asks of a student."""

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
