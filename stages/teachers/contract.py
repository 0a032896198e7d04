"""What `ckd precompute` asks of a teacher."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch


@dataclass(frozen=True)
class TextVectors:
    """A domain's item text vectors and the encoder they come from.

    Attributes:
        vectors: float32 [n_items, p], row = item code.
        encoder: SHA-256 of the encoder's weights.
    """

    vectors: npt.NDArray[np.float32]
    encoder: str


class Teacher(Protocol):
    """A frozen dual encoder over one domain: the raw score of an item is ``query . item vector``.

    Raw scores are on the teacher's training scale (for a cosine teacher: cosine / tau), so that their softmax is
    the distribution that the teacher was trained to give. Tensors are of the dtype that it was opened with.
    """

    @property
    def n_parameters(self) -> int:
        """Parameters that take part in scoring."""

    def item_vectors(self) -> torch.Tensor:
        """Return [n_items, d], row = item code."""

    def queries(self, first: int, last: int, batch_size: int) -> torch.Tensor:
        """Return the query vector of every position of the users ``first`` to ``last`` (exclusive).

        [N, d] in the order of ``Corpus.positions(first, last)``. ``batch_size``, in sequences, may change
        speed and memory, never a value beyond rounding.
        """

    def queries_at(self, users: npt.NDArray[np.int32], position: npt.NDArray[np.int32]) -> torch.Tensor:
        """Return the query vector of one position of each user, [n, d]: what a server of this teacher computes.

        Args:
            users: int32 [n], user codes.
            position: int32 [n], history lengths; the history is the user's first items.
        """


EpochReport = Callable[[dict[str, float]], None]
"""Called after each epoch with its row of the curve."""
