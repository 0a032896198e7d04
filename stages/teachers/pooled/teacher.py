"""Item vectors as a teacher. Computed in float64: the rounded labels are the same bytes whatever the batch size."""

from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ckd.stages.teachers.causal import every_position, one_position
from ckd.stages.teachers.contract import Opening
from ckd.stages.teachers.pooled import PooledSettings
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError

LARGEST = float(np.finfo(np.float16).max)
"""Queries are stored in half precision."""


class PooledTeacher:
    """A :class:`ckd.stages.teachers.contract.Teacher`: z(v | h) = similarity(sum_n w^n v_(t-n) / sum_n w^n, v) / tau.

    n counts the last ``max_length`` items of the history, 0 the last one.
    """

    def __init__(self, settings: PooledSettings, corpus: Corpus, items: Tensor) -> None:
        self._settings = settings
        self._corpus = corpus
        if settings.center:
            items = items - items.mean(0)
        self._items = F.normalize(items, dim=-1) if settings.similarity == "cosine" else items

    @classmethod
    def of(cls, opening: Opening, vectors: npt.NDArray[np.float32], key: str) -> Self:
        """Return the teacher of a domain's item vectors.

        Args:
            opening: settings, corpus, device.
            vectors: float32 [n_items, d], row = item code.
            key: of the setting that the vectors come from, for the message.

        Raises:
            UserError: the vectors are so large, or the temperature is so low, that queries cannot be stored.
        """
        dtype = torch.float32 if opening.serving else torch.float64
        teacher = cls(opening.settings, opening.corpus, torch.from_numpy(vectors).to(opening.device, dtype))
        largest = float(teacher._items.abs().max()) / opening.settings.temperature
        if largest > LARGEST:
            raise UserError(
                f"{key}: vectors up to {largest:.3g} after division by the temperature do not fit into the half "
                "precision of labels; scale the vectors down, raise the temperature or take similarity: cosine"
            )
        return teacher

    @property
    def n_parameters(self) -> int:
        """Numbers that a server of it keeps: the item vectors."""
        return self._items.numel()

    def item_vectors(self) -> Tensor:
        """Return floats [n_items, d], of length 1 where the similarity is the cosine."""
        return self._items

    def queries(self, first: int, last: int, batch_size: int) -> Tensor:
        """Return pooled vectors divided by tau, [N, d]; see the contract."""
        pooled = every_position(
            self._pool, self._corpus, first, last, self._settings.seen, batch_size, like=self._items
        )
        return self._scaled(pooled)

    def queries_at(self, users: npt.NDArray[np.int32], position: npt.NDArray[np.int32]) -> Tensor:
        """Return pooled vectors divided by tau, [n, d]; see the contract."""
        device = self._items.device
        return self._scaled(one_position(self._pool, self._corpus, users, position, self._settings.seen, device))

    def _pool(self, codes: Tensor) -> Tensor:
        """int64 [B, L] -> [B, L, d]: the weighted mean of the first t + 1 items at index t.

        Step by step from the oldest item, and with no item taken out again, so that nothing cancels and the sum of a
        history has the same bits in every batch.
        """
        pooled, weight = self._items[codes], self._settings.weight
        for index in range(1, codes.shape[1]):
            pooled[:, index] += weight * pooled[:, index - 1]
        total = np.cumsum(weight ** np.arange(codes.shape[1], dtype=np.float64))
        return pooled / torch.from_numpy(total).to(pooled).unsqueeze(1)

    def _scaled(self, pooled: Tensor) -> Tensor:
        vectors = F.normalize(pooled, dim=-1) if self._settings.similarity == "cosine" else pooled
        return vectors / self._settings.temperature
