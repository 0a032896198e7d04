"""What students have in common that score the interactions of a history's features with an item's."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ckd.stages.batching import TrainingWindows, encoded, histories, padded
from ckd.stages.evaluate.ranking import Scorer
from ckd.stages.students.contract import Domain, Step, positions_of
from ckd.stages.students.fields import Fields
from ckd.stages.students.item_features import item_features
from ckd.stages.students.sampled import SampledScores, uniform_sample
from ckd.stages.students.serving import DotProductServing, Serving

if TYPE_CHECKING:
    from ckd.stages.students.fm import Fields as FieldSettings


class InteractionStudent(nn.Module, ABC):
    """A :class:`ckd.stages.students.contract.Student` and a :class:`ckd.stages.students.sampled.Pairing`.

    It makes one vector of a history's fields and one of an item's, and a score of the two.

    Attributes:
        max_length: items of a history that are seen, the last ones.
        fields: the features' vectors.
    """

    def __init__(self, settings: "FieldSettings", domains: Sequence[Domain]) -> None:
        super().__init__()
        self.max_length = settings.max_length
        self.negatives = settings.negatives
        bags = item_features([domain.corpus for domain in domains], settings.min_items, settings.max_features)
        self.fields = Fields(settings, [domain.items for domain in domains], bags)
        self.dropout = nn.Dropout(settings.dropout)

    @property
    def items(self) -> nn.Embedding:
        """What is known of each item by itself: the vectors of their ids."""
        return self.fields.id

    @abstractmethod
    def context_vectors(self, fields: Tensor) -> Tensor:
        """float [N, F, d] -> [N, c]."""

    @abstractmethod
    def item_vectors(self, fields: Tensor, own: Tensor) -> Tensor:
        """float [n, F, d] and [n], what each item scores by itself -> [n, v]."""

    @abstractmethod
    def pairs(self, contexts: Tensor, items: Tensor) -> Tensor:
        """Score m items of each context: float [N, c] and [N, m, v] -> [N, m]."""

    @abstractmethod
    def cross(self, contexts: Tensor, items: Tensor) -> Tensor:
        """Score every item at every context: float [N, c] and [U, v] -> [N, U]."""

    def step(self, domain: Domain, served: TrainingWindows, draw: np.random.Generator) -> Step:
        """Offer the scores of every position of the sequences; the normaliser is of one sample for the whole batch."""
        items = self.catalogue(domain)
        codes = padded(domain.corpus.sequence, served.start, served.length)
        known = self.fields.in_history(domain)

        def fields(codes: Tensor) -> Tensor:
            ends = torch.arange(codes.shape[1], device=codes.device).unsqueeze(0)
            return self.fields.contexts(codes, ends, domain, known)

        contexts = self.context_vectors(self.dropout(encoded(fields, codes.to(items.device), served.length)))
        sample = uniform_sample(len(items), self.negatives, draw).to(items.device)
        return Step(*positions_of(domain, served, items.device), SampledScores(self, contexts, items, sample))

    def scorer(self, domain: Domain) -> Scorer:
        """Return a scorer of histories over the whole catalogue; what does not depend on them is computed once."""
        self.eval()
        with torch.no_grad():
            items, known = self.catalogue(domain), self.fields.in_history(domain)

        @torch.inference_mode()
        def score(users: npt.NDArray[np.int32], position: npt.NDArray[np.int32]) -> Tensor:
            codes, ends = histories(domain.corpus, users, position, self.max_length)
            ends = ends.unsqueeze(1).to(items.device)
            fields = self.fields.contexts(codes.to(items.device), ends, domain, known)
            return self.cross(self.context_vectors(fields.squeeze(1)), items)

        return score

    def catalogue(self, domain: Domain) -> Tensor:
        """Return the vectors of a domain's items, float [n, v]."""
        fields = self.fields.items(domain)
        return self.item_vectors(fields, self.fields.own(fields, domain))

    def serving(self, domain: Domain) -> Serving:
        """Return the student as it is now and is served in a domain."""
        self.eval()
        return InteractionServing(self, domain)


class InteractionServing(Serving):
    """What does not depend on the history is computed once."""

    def __init__(self, student: InteractionStudent, domain: Domain) -> None:
        super().__init__()
        self.eval()
        self.student, self._domain = student, domain
        with torch.no_grad():
            # Made of sparse products, which no exported model has.
            self.register_buffer("items", student.catalogue(domain))
            self.register_buffer("known", student.fields.in_history(domain))

    def query(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Return the vector of each history, float [B, c]."""
        known = self.get_buffer("known")
        fields = self.student.fields.contexts(items, (lengths - 1).unsqueeze(1), self._domain, known)
        return self.student.context_vectors(fields.squeeze(1))

    def item_vectors(self) -> Tensor:
        """Return the vector of each item of the domain, float [n, v]."""
        return self.get_buffer("items")

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Return the scores of their interactions, float [B, n]."""
        return self.student.cross(self.query(items, lengths), self.item_vectors())


class DotProductInteraction(InteractionServing, DotProductServing):
    """The same where ``cross`` is a matrix product."""
