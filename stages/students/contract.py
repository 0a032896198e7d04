"""What `ckd distill` asks of a student.

A student is a ``torch.nn.Module`` over the items of one or several domains. Its trainer serves it users' sequences and
hears, for some positions of them, what the student makes of the items. How histories become scores is its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ckd.stages.batching import TrainingWindows
from ckd.stages.evaluate.ranking import Scorer
from ckd.stages.students.serving import Serving, UserServing
from ckd.storage.corpus import Corpus


@dataclass(frozen=True)
class Domain:
    """One domain of a student.

    Attributes:
        index: its place among the student's domains.
        corpus: its items and sequences.
        first: row of its first item among the items of all the student's domains.
    """

    index: int
    corpus: Corpus
    first: int = 0

    @property
    def items(self) -> slice:
        """Rows of its items among the items of all the student's domains."""
        return slice(self.first, self.first + self.corpus.n_items)


def side_by_side(corpora: Sequence[Corpus]) -> list[Domain]:
    """Return the domains of one student; their items stand one domain after the other."""
    sizes = [corpus.n_items for corpus in corpora]
    return [Domain(index, corpus, sum(sizes[:index])) for index, corpus in enumerate(corpora)]


def by_name(corpora: Mapping[str, Corpus]) -> dict[str, Domain]:
    """Return the domains of one student by their names, in their order."""
    return dict(zip(corpora, side_by_side(list(corpora.values())), strict=True))


def positions_of(domain: Domain, served: TrainingWindows, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ``place`` and ``target`` of a :class:`Step` that teaches every position of some sequences, int64 [N]."""
    places, targets = served.places(domain.corpus), served.targets(domain.corpus)
    return torch.from_numpy(places).to(device), torch.from_numpy(targets).to(device)


class Scores(Protocol):
    """What a student makes of the items of a domain at N positions. Higher is better; softmax gives probabilities.

    Attributes:
        logsumexp: float [N], log-normaliser over the whole catalogue; of a student that samples it, an estimate.
    """

    @property
    def logsumexp(self) -> Tensor:
        """See above."""

    def of(self, items: Tensor) -> Tensor:
        """Return the scores of other items at each position: int64 [N, m] item codes -> float [N, m]."""

    def among(self, items: Tensor) -> Tensor:
        """Return the scores of the same items at every position: int64 [U] item codes -> float [N, U]."""

    def normaliser(self, items: Tensor, own: Tensor) -> Tensor:
        """Return the log-normaliser in which some items are exact, float [N]: no less than their logsumexp.

        Args:
            items: int64 [N, m].
            own: float [N, m], their scores; minus infinity where an item stands in its row already.
        """

    def best(self, m: int) -> Tensor:
        """Return the best items at each position, int64 [N, m], best first; all of them, if there are no m.

        Of a student that samples the catalogue they are the best of its sample.
        """

    def rows(self, chosen: Tensor | slice) -> "Scores":
        """Return the scores at some positions: bool [N], int64 [M] or a slice."""


@dataclass(frozen=True)
class Step:
    """What one batch of sequences teaches.

    Attributes:
        place: int64 [N], index of each position among all positions of the domain's corpus.
        target: int64 [N], the item that followed.
        scores: the student's, at these positions.
        weight: float [N] or None, what each position counts; None is 1.
        own: float [M] or None, losses of the student's own making on the truth, beside those of its positions.
        own_weight: float [M] or None, what each of these counts; None is 1.
    """

    place: Tensor
    target: Tensor
    scores: Scores
    weight: Tensor | None = None
    own: Tensor | None = None
    own_weight: Tensor | None = None


class Student(Protocol):
    """A ``torch.nn.Module`` with these methods.

    Attributes:
        max_length: training positions of a sequence that are served, the last ones.
        items: float32 [n_items of all domains, d], what the student knows of each item by itself.
    """

    max_length: int
    items: nn.Embedding

    def step(self, domain: Domain, served: TrainingWindows, draw: np.random.Generator) -> Step:
        """Return what these sequences teach; with gradients.

        Args:
            domain: whose sequences they are.
            served: a batch of them.
            draw: for whatever is sampled.
        """

    def scorer(self, domain: Domain) -> Scorer:
        """Return a scorer of the student as it is now, in evaluation mode and without gradients."""


@runtime_checkable
class TeachesUnevenly(Protocol):
    """What a student offers beside, if the positions of a sequence do not all count one in an epoch.

    It is what ``ckd distill --explain`` shows; the training itself hears it from each :class:`Step`.
    """

    def position_weights(self, length: int) -> npt.NDArray[np.float64]:
        """Return what each position of a served sequence counts in an epoch, in the mean over draws, float64 [length].

        Args:
            length: of the sequence, at most ``max_length``.
        """


def position_weights_of(student: Student) -> Callable[[int], npt.NDArray[np.float64]]:
    """Return ``position_weights`` of a student; of one that has none, ones."""
    return student.position_weights if isinstance(student, TeachesUnevenly) else np.ones


@runtime_checkable
class ScoresHistories(Protocol):
    """What a student offers beside, if its scores depend on the history alone and not on who the user is.

    Such a student serves users that it was not trained with, and can be exported. That its serving scores as its
    ``scorer`` does is checked at every export.
    """

    def serving(self, domain: Domain) -> Serving:
        """Return the student as it is now and is served in a domain.

        The network must be one that is built from the items of its domains alone (``domain.corpus.items``): where an
        export is loaded, there are no users.
        """


@runtime_checkable
class ScoresUsers(Protocol):
    """What a student offers instead, if its scores depend on who the user is: it can be exported, for its own users.

    Attributes:
        repeats: whether a user's training items are evaluated as all others; if not, they come behind these.
    """

    repeats: bool

    def user_serving(self, domain: Domain) -> UserServing:
        """Return the student as it is now and is served in a domain."""
