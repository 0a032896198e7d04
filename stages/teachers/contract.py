"""What `ckd precompute` asks of a teacher, and what `ckd pretrain` gives to the training that makes one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from ckd.storage.corpus import SPLITS, Corpus
from ckd.storage.curve import write_curve
from ckd.storage.draft import Draft


@dataclass(frozen=True)
class TextVectors:
    """A domain's item text vectors and the encoder they come from.

    Attributes:
        vectors: float32 [n_items, p], row = item code.
        encoder: SHA-256 of the encoder's weights; None for vectors that a user brought, of which it is not known.
        way: how texts became vectors (fields, style, pooling, ...), by name of the setting; None where not known.
    """

    vectors: npt.NDArray[np.float32]
    encoder: str | None
    way: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Opening:
    """All that a frozen teacher is opened with.

    Attributes:
        settings: of the teacher, the kind's ``Settings``.
        files: role to file of the frozen teacher, as ``Settings.files`` names them or as training wrote them.
        corpus: the domain that it labels.
        text: the domain's text vectors, where the kind reads any.
        device: where it runs.
        serving: float32, as a server would run it, instead of the precision of labels.
        item_vectors: float32 [n_items, d], what the teacher's ``item_vectors`` gave when it was opened before, where
            they are kept (``Settings.encodes_items``).
        splits: whose positions are asked for; a teacher that reads each history by itself computes no others.
    """

    settings: Any
    files: Mapping[str, Path]
    corpus: Corpus
    text: TextVectors | None
    device: torch.device
    serving: bool = False
    item_vectors: npt.NDArray[np.float32] | None = None
    splits: tuple[str, ...] = SPLITS


class Teacher(Protocol):
    """A frozen dual encoder over one domain: the raw score of an item is ``query . item vector``.

    Raw scores are on the teacher's training scale (for a cosine teacher: cosine / tau), so that their softmax is
    the distribution that the teacher was trained to give.
    """

    @property
    def n_parameters(self) -> int:
        """Parameters that take part in scoring."""

    def item_vectors(self) -> torch.Tensor:
        """Return floats [n_items, d], row = item code."""

    def queries(self, first: int, last: int, batch_size: int) -> torch.Tensor:
        """Return the query vector of every position of the users ``first`` to ``last`` (exclusive).

        Floats [N, d] in the order of ``Corpus.positions(first, last)``. ``batch_size``, in sequences, may change
        speed and memory, never a stored bit.
        """

    def queries_at(self, users: npt.NDArray[np.int32], position: npt.NDArray[np.int32]) -> torch.Tensor:
        """Return the query vector of one position of each user, [n, d]: what a server of this teacher computes.

        Args:
            users: int32 [n], user codes.
            position: int32 [n], history lengths; the history is the user's first items.
        """


@dataclass(frozen=True)
class RankedLists:
    """What a teacher that is no dual encoder says: at each position that it answers, a list of items, best first.

    It says nothing of the other items; ``ckd.stages.precompute.lists`` completes the lists.

    Attributes:
        offsets: int64 [n_positions + 1]; the list of the corpus' position i is ``items[offsets[i]:offsets[i + 1]]``,
            empty where there is none.
        items: int32 [M], item codes, distinct within a list.
        logprobs: float64 [M], finite log-probabilities over the catalogue; those of a list sum to at most one, but for
            rounding, and to one if the list holds every item.
        source: where the lists come from, for messages.
        skip_missing: whether asked positions without a list are left out; else they are a mistake.
    """

    offsets: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    logprobs: npt.NDArray[np.float64]
    source: str
    skip_missing: bool = False


EpochReport = Callable[[dict[str, float]], None]
"""Called after each epoch with its row of the curve."""


@dataclass(frozen=True)
class DomainData:
    """What training reads of one domain.

    Attributes:
        corpus: the domain; of a target domain only its training split is trained on.
        text: its text vectors, where the kind reads any.
        augmented: text vectors of its items with words left out, where pre-training asks for them.
    """

    corpus: Corpus
    text: TextVectors | None = None
    augmented: TextVectors | None = None


@dataclass(frozen=True)
class Job:
    """One training of a teacher.

    Attributes:
        draft: where the frozen teacher is written to, and after each epoch the state of the training; None on all
            processes but the first.
        settings: of the pre-training or the adaptation.
        device: where it runs.
        on_epoch: progress.
        state: file with the state of an interrupted training that is gone on with, on every process.
    """

    draft: Draft | None
    settings: Any
    device: torch.device
    on_epoch: EpochReport = lambda _: None
    state: Path | None = None

    def add(self, name: str, fill: Callable[[Path], None]) -> None:
        """Add one file of the frozen teacher to the draft, on the first process."""
        if self.draft is not None:
            self.draft.add(name, fill)

    def add_curve(self, curve: Sequence[Mapping[str, float]]) -> None:
        """Add the training curve to the draft, on the first process."""
        if self.draft is not None:
            write_curve(self.draft, curve)
