"""A student as it is served: a history in, the scores of a domain's items out."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Serving(nn.Module, ABC):
    """A function of histories that can be exported: made of tensor operations, of any batch and length.

    Its submodules are in evaluation mode.
    """

    @abstractmethod
    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Return the scores of all items of the domain, float [B, n_items].

        Args:
            items: int64 [B, L], codes of the domain's items, oldest first, right-padded with any code.
            lengths: int64 [B], items of each history, from 1 to L; L is at most the student's ``max_length``.
        """


class DotProductServing(Serving):
    """The same where a score is the dot product of two vectors, so that an index can search for the best items.

    A bias of items is one more number of each item vector, and a 1 at the end of each query.
    """

    @abstractmethod
    def query(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Return the vector of each history, float [B, d]; the arguments are those of ``forward``."""

    @abstractmethod
    def item_vectors(self) -> Tensor:
        """Return the vectors of the domain's items, float [n_items, d]."""

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Return their dot products, float [B, n_items]."""
        return self.query(items, lengths) @ self.item_vectors().T
