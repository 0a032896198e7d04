"""The frozen UniSRec of one domain, as `ckd precompute` asks it.

Labels are computed in float64. A UniSRec is small, so that costs little, and it makes the rounded labels the same
bytes whatever the batch size, the number of threads or the device.
"""

from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ckd.stages.teachers.causal import every_position, one_position
from ckd.stages.teachers.contract import Opening
from ckd.stages.teachers.unisrec.checkpoint import load_frozen
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.storage.corpus import Corpus


class UniSRecTeacher:
    """A :class:`ckd.stages.teachers.contract.Teacher`: z(v | h) = cos(s_h, v) / tau (paper, equation 7)."""

    def __init__(
        self, model: UniSRec, corpus: Corpus, text: npt.NDArray[np.float32], device: torch.device, dtype: torch.dtype
    ) -> None:
        self._model = model.to(device, dtype).eval()
        self._corpus = corpus
        with torch.inference_mode():
            self._table = self._model.item_table(torch.from_numpy(text).to(device, dtype))

    @classmethod
    def open(cls, opening: Opening) -> Self:
        """Open a frozen teacher and check that it fits the domain and the text vectors."""
        corpus, text = opening.corpus, opening.text
        if text is None:
            raise ValueError("a UniSRec needs item text vectors")
        _, model = load_frozen(opening.files, corpus, text)
        dtype = torch.float32 if opening.serving else torch.float64
        return cls(model, corpus, text.vectors, opening.device, dtype)

    @property
    def n_parameters(self) -> int:
        """Parameters that take part in scoring: all but the gate noise, which acts in training only."""
        parameters = dict(self._model.named_parameters())
        return sum(tensor.numel() for name, tensor in parameters.items() if name != "moe_adaptor.w_noise")

    def item_vectors(self) -> torch.Tensor:
        """Return unit vectors [n_items, d]."""
        return F.normalize(self._table, dim=-1)

    def queries(self, first: int, last: int, batch_size: int) -> torch.Tensor:
        """Return unit sequence vectors divided by tau, [N, d]; see the contract."""
        length = self._model.settings.max_length
        encoded = every_position(self._encode, self._corpus, first, last, length, batch_size, self._table)
        return self._scaled(encoded)

    def queries_at(self, users: npt.NDArray[np.int32], position: npt.NDArray[np.int32]) -> torch.Tensor:
        """Return unit sequence vectors divided by tau, [n, d]; see the contract."""
        length = self._model.settings.max_length
        return self._scaled(one_position(self._encode, self._corpus, users, position, length, self._table.device))

    def _encode(self, codes: torch.Tensor) -> torch.Tensor:
        return self._model.encode(self._table[codes])

    def _scaled(self, encoded: torch.Tensor) -> torch.Tensor:
        return F.normalize(encoded, dim=-1) / self._model.settings.temperature
