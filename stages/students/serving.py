"""A student as it is served: a history, or a user, in, the scores of a domain's items out."""

from abc import ABC, abstractmethod

import torch
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

    def answer(self, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return ``forward``, and the vector of each history if the scores are its dot products, float [B, d]."""
        return self(items, lengths), None


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

    def answer(self, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return their dot products, float [B, n_items], and the vectors of the histories."""
        query = self.query(items, lengths)
        return query @ self.item_vectors().T, query

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Return their dot products, float [B, n_items]."""
        return self.answer(items, lengths)[0]


class UserServing(nn.Module):
    """A function of users that can be exported: a score is the dot product of a user's vector and an item's.

    Args:
        users: float [n_users, d].
        items: float [n_items, d].
    """

    def __init__(self, users: Tensor, items: Tensor) -> None:
        super().__init__()
        self.register_buffer("users", users)
        self.register_buffer("items", items)
        self.eval()

    def query(self, users: Tensor) -> Tensor:
        """Return the vector of each user, int64 [B] -> float [B, d]."""
        return self.get_buffer("users")[users]

    def item_vectors(self) -> Tensor:
        """Return the vectors of the domain's items, float [n_items, d]."""
        return self.get_buffer("items")

    def forward(self, users: Tensor, items: Tensor, lengths: Tensor) -> Tensor:
        """Return the scores of all items of the domain, float [B, n_items]; the arguments are those of ``answer``."""
        return self.answer(users, items, lengths)[0]

    def answer(self, users: Tensor, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores of all items of the domain, float [B, n_items], and the vector of each user, float [B, d].

        Args:
            users: int64 [B], codes of the domain's users.
            items: int64 [B, L], codes of items that come behind all others, in their own order, whatever their scores:
                those that a user has; right-padded with any code.
            lengths: int64 [B], how many of these, from 0 to L.
        """
        vectors, query = self.item_vectors(), self.query(users)
        scores = query @ vectors.T
        had = torch.arange(items.shape[1], device=items.device) < lengths.unsqueeze(1)
        # The column behind the last one takes what is padding.
        column = torch.where(had, items, vectors.shape[0])
        behind = scores.new_zeros(scores.shape[0], vectors.shape[0] + 1).scatter(1, column, 1.0)
        span = scores.amax(1, keepdim=True) - scores.amin(1, keepdim=True) + 1
        return scores - behind[:, :-1] * span, query
