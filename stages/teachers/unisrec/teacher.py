"""The frozen UniSRec of one domain, as `ckd precompute` asks it.

Labels are computed in float64. A UniSRec is small, so that costs little, and it makes the rounded labels the same
bytes whatever the batch size, the number of threads or the device.
"""

from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ckd.stages.batching import at, histories, padded
from ckd.stages.teachers.contract import Opening
from ckd.stages.teachers.unisrec.checkpoint import load_frozen
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.stages.teachers.windows import batches, windows
from ckd.storage.corpus import Corpus


class UniSRecTeacher:
    """A :class:`ckd.stages.teachers.contract.Teacher`: z(v | h) = cos(s_h, v) / tau (paper, equation 7)."""

    def __init__(
        self, model: UniSRec, corpus: Corpus, text: npt.NDArray[np.float32], device: torch.device, dtype: torch.dtype
    ) -> None:
        self._model = model.to(device, dtype).eval()
        self._corpus = corpus
        self._device, self._dtype = device, dtype
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

    @torch.inference_mode()
    def queries(self, first: int, last: int, batch_size: int) -> torch.Tensor:
        """Return unit sequence vectors divided by tau, [N, d]; see the contract."""
        network = self._model.settings
        passes = windows(self._corpus, first, last, network.max_length)
        out = torch.empty(int(passes.reads.sum()), network.hidden, dtype=self._dtype, device=self._device)
        for batch in batches(passes, batch_size):
            length, reads = passes.length[batch], passes.reads[batch]
            codes, _ = padded(self._corpus.sequence, passes.start[batch], length)
            encoded = self._model.encode(self._table[codes.to(self._device)])
            index = torch.arange(encoded.shape[1])
            ends, counts = torch.from_numpy(length).unsqueeze(1), torch.from_numpy(reads).unsqueeze(1)
            read = (index < ends) & (index >= ends - counts)
            rows = (torch.from_numpy(passes.row[batch]).unsqueeze(1) + index - (ends - counts))[read]
            out[rows.to(self._device)] = encoded[read.to(self._device)]
        return F.normalize(out, dim=-1) / network.temperature

    @torch.inference_mode()
    def queries_at(self, users: npt.NDArray[np.int32], position: npt.NDArray[np.int32]) -> torch.Tensor:
        """Return unit sequence vectors divided by tau, [n, d]; see the contract."""
        network = self._model.settings
        codes, ends = histories(self._corpus, users, position, network.max_length)
        encoded = at(self._model.encode(self._table[codes.to(self._device)]), ends)
        return F.normalize(encoded, dim=-1) / network.temperature
