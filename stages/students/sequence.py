"""What students have in common that encode a history as a vector and score an item by a dot product with it."""

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ckd.stages.batching import TrainingWindows, at, encoded, histories, padded
from ckd.stages.evaluate.ranking import Scorer
from ckd.stages.students.contract import Domain, Step, positions_of
from ckd.stages.students.scores import DotScores
from ckd.stages.students.serving import DotProductServing


class HistoryStudent(nn.Module, ABC):
    """A :class:`ckd.stages.students.contract.Student` that is served as the vector of a history and those of items.

    Attributes:
        max_length: items of a history that are seen, the last ones.
    """

    max_length: int

    @abstractmethod
    def item_vectors(self) -> Tensor:
        """Return float [n_items, d], a row per item of all domains."""

    @abstractmethod
    def query(self, items: Tensor, ends: Tensor) -> Tensor:
        """Return the vector of each history, float [B, d].

        Args:
            items: int64 [B, L], rows of items, oldest first, right-padded with anything; ``L`` is at most
                ``max_length``.
            ends: int64 [B], index of the last item of each.
        """

    @abstractmethod
    def step(self, domain: Domain, served: TrainingWindows, draw: np.random.Generator) -> Step:
        """Return what these sequences teach; see the contract."""

    def scorer(self, domain: Domain) -> Scorer:
        """Return a scorer of histories; the item vectors are computed once."""
        self.eval()
        items = self.item_vectors()[domain.items].detach()

        @torch.inference_mode()
        def score(users: npt.NDArray[np.int32], position: npt.NDArray[np.int32]) -> Tensor:
            codes, ends = histories(domain.corpus, users, position, self.max_length)
            scores: Tensor = self.query(codes.to(items.device) + domain.first, ends.to(items.device)) @ items.T
            return scores

        return score

    def serving(self, domain: Domain) -> DotProductServing:
        """Return the student as it is served in a domain."""
        self.eval()
        return _HistoryServing(self, domain)


class SequenceStudent(HistoryStudent):
    """A student that reads a sequence once and scores every position of it."""

    @abstractmethod
    def encode(self, items: Tensor) -> Tensor:
        """int64 [B, L] rows of items, oldest first, right-padded with anything -> float [B, L, d].

        The vector at index t stands for the history of the first t + 1 items. ``L`` is at most ``max_length``.
        """

    def step(self, domain: Domain, served: TrainingWindows, draw: np.random.Generator) -> Step:
        """Score every position of the sequences, padding left out, against the whole catalogue."""
        items = self.item_vectors()[domain.items]
        codes = padded(domain.corpus.sequence, served.start, served.length)
        states = encoded(self.encode, codes.to(items.device) + domain.first, served.length)
        return Step(*positions_of(domain, served, items.device), DotScores(states, items))

    def query(self, items: Tensor, ends: Tensor) -> Tensor:
        """Return the vector of each history, float [B, d]: what ``encode`` gives at its last item."""
        return at(self.encode(items), ends)


class _HistoryServing(DotProductServing):
    def __init__(self, student: HistoryStudent, domain: Domain) -> None:
        super().__init__()
        self.eval()
        self.student = student
        self._first, self._items = domain.first, domain.items

    def query(self, items: Tensor, lengths: Tensor) -> Tensor:
        return self.student.query(items + self._first, lengths - 1)

    def item_vectors(self) -> Tensor:
        return self.student.item_vectors()[self._items]
