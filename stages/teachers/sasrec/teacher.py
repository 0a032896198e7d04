"""The frozen SASRec of one domain, as `ckd precompute` asks it.

Labels are computed in float64, which makes the rounded labels the same bytes whatever the batch size or the device.
"""

from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch

from ckd.stages import settings
from ckd.stages.students import sasrec
from ckd.stages.students.sasrec.network import SASRec
from ckd.stages.teachers.causal import every_position, one_position
from ckd.stages.teachers.checkpoint import catalogue_digest, read_config, read_weights
from ckd.stages.teachers.contract import Opening
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError


class Config(settings.Settings):
    """What the weights do not say."""

    kind: Literal["sasrec"] = "sasrec"
    format: Literal[1] = 1
    network: sasrec.Sizes
    items: str
    """Digest of the catalogue's item ids in order of code."""


def load(folder: Path, corpus: Corpus) -> SASRec:
    """Return the network of a folder, float32, in evaluation mode.

    Raises:
        UserError: it is not a whole SASRec, or one of another catalogue than the corpus'.
    """
    config = read_config(folder, Config)
    if config.items != catalogue_digest(corpus):
        raise UserError(
            f"{folder}: this teacher was trained on another catalogue than the domain's {corpus.n_items} items; "
            "train one on this domain (train in place of checkpoint), or name its own with {domain} in the path"
        )
    model = SASRec(config.network, corpus.n_items)
    read_weights(folder / WEIGHTS, model, "SASRec")
    return model


class SASRecTeacher:
    """A :class:`ckd.stages.teachers.contract.Teacher`: z(v | h) = s_h . v, as in training."""

    def __init__(self, model: SASRec, corpus: Corpus, device: torch.device, dtype: torch.dtype) -> None:
        self._model = model.to(device, dtype).eval()
        self._corpus = corpus

    @classmethod
    def open(cls, opening: Opening) -> Self:
        """Open a frozen teacher and check that it is of the domain's catalogue."""
        dtype = torch.float32 if opening.serving else torch.float64
        model = load(opening.files[CONFIG].parent, opening.corpus)
        return cls(model, opening.corpus, opening.device, dtype)

    @property
    def n_parameters(self) -> int:
        """Parameters that take part in scoring: all of them."""
        return sum(tensor.numel() for tensor in self._model.parameters())

    def item_vectors(self) -> torch.Tensor:
        """Return floats [n_items, d]."""
        return self._model.item_vectors().detach()

    def queries(self, first: int, last: int, batch_size: int) -> torch.Tensor:
        """Return sequence vectors, [N, d]; see the contract."""
        length, items = self._model.max_length, self.item_vectors()
        return every_position(self._model.encode, self._corpus, first, last, length, batch_size, like=items)

    def queries_at(self, users: npt.NDArray[np.int32], position: npt.NDArray[np.int32]) -> torch.Tensor:
        """Return sequence vectors, [n, d]; see the contract."""
        length, device = self._model.max_length, self.item_vectors().device
        return one_position(self._model.encode, self._corpus, users, position, length, device)
