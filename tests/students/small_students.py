"""A small student of every kind, and what the tests of the contract do with one.

A kind joins by a line in ``KINDS``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from known_worlds import TRUTHS, Array, Truth

from ckd.stages.batching import training_windows
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.teaching import Teaching
from ckd.stages.distill.train import Lesson, train
from ckd.stages.evaluate.ranking import rank_targets
from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import Domain, Step, side_by_side
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Kind:
    """One kind of student.

    Attributes:
        settings: of a small one that learns its world in ``epochs`` epochs; nothing is dropped out.
        truth: the world it is to learn: ``successors`` if it sees the order of a history, ``blocks`` otherwise.
        random: settings that make its training random, such as dropout.
        uneven: settings with which some positions count less than others; none if there are no such.
        draws: which positions a step teaches is drawn.
        epochs: as many as it needs.
        exact: its scores in training are of the whole catalogue.
        as_served: in evaluation mode its steps give each position the scores that it is served with.
        windowed: of a history it sees the last ``max_length`` items only.
        joint: one network may serve several domains.
        by_history: it is served with what a user has done since the training, too.
    """

    settings: Mapping[str, Any]
    truth: str
    random: Mapping[str, Any] = field(default_factory=dict)
    uneven: Mapping[str, Any] = field(default_factory=dict)
    draws: bool = False
    epochs: int = 25
    exact: bool = True
    as_served: bool = True
    windowed: bool = True
    joint: bool = True
    by_history: bool = True


_SMALL = {"hidden": 16, "max_length": 10, "dropout": 0.0, "learning_rate": 1e-2}
_ATTENTIVE = {**_SMALL, "blocks": 1, "heads": 2}
_CALM = {"learning_rate": 5e-3, "weight_decay": 0.0}
_DROPOUT = {"dropout": 0.3}
KINDS = {
    "sasrec": Kind(_ATTENTIVE, "successors", _DROPOUT),
    "esasrec": Kind(_ATTENTIVE, "successors", _DROPOUT),
    "gru4rec": Kind(_SMALL, "successors", _DROPOUT),
    "bert4rec": Kind(
        {**_ATTENTIVE, "hidden": 32, **_CALM, "mask_share": 0.1},
        "successors",
        _DROPOUT,
        uneven={"ends": 3},
        draws=True,
        epochs=30,
    ),
    "fm": Kind({**_SMALL, "min_items": 1, "negatives": 6}, "successors", _DROPOUT, exact=False),
    "deepfm": Kind({**_SMALL, "min_items": 1, "layers": (8, 4), "negatives": 6}, "successors", _DROPOUT, exact=False),
    "lightgcn": Kind(
        {"hidden": 16, "learning_rate": 1e-2, "repeats": True},
        "blocks",
        uneven={"recency": 0.7},
        as_served=False,
        windowed=False,
        joint=False,
        by_history=False,
    ),
}


@dataclass
class Student:
    """One kind, and the worlds it is tested in."""

    name: str
    kind: Kind
    make_world: Any

    @property
    def truth(self) -> Truth:
        return TRUTHS[self.kind.truth]

    def world(self, silent: bool = False, users: int = 60, n_items: int = 12, seed: int = 0) -> Any:
        made = (self.truth.silent if silent else self.truth.sequences)(users, n_items, seed)
        return self.make_world(made, n_items)

    def options(self, **settings: Any) -> Any:
        return STUDENTS.load(self.name).Settings.model_validate({**self.kind.settings, **settings})

    def build(self, *corpora: Corpus, seed: int = 0, **settings: Any) -> Any:
        torch.manual_seed(seed)
        return STUDENTS.load(self.name).build(self.options(**settings), side_by_side(corpora))

    def trained(
        self, corpus: Corpus, lesson: Lesson | None = None, seed: int = 0, distill: Any = None, **settings: Any
    ) -> Any:
        network = self.build(corpus, seed=seed, **settings)
        option = training(epochs=self.kind.epochs) if distill is None else distill
        train(network, side_by_side([corpus]), [lesson], self.options(**settings), option, seed)
        return network

    def step(self, network: Any, domain: Domain, users: slice = slice(None)) -> Step:
        windows = training_windows(domain.corpus, network.max_length)
        rows = np.arange(len(windows.user))[users]
        step: Step = network.step(domain, windows.take(rows), np.random.default_rng(0))
        return step


def training(**values: Any) -> DistillSettings:
    quick = {"epochs": 2, "patience": 100, "batch_size": 8, "curriculum": {"pacing": "none"}}
    return DistillSettings.model_validate({**quick, **values})


def same(one: Any, other: Any) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return all(torch.equal(left[name], right[name]) for name in left)


def scored(network: Any, domain: Domain, held_out: int = 1) -> torch.Tensor:
    """The scores of every user's history without its last items, which the test target is one of."""
    users = np.arange(domain.corpus.n_users, dtype=np.int32)
    scores: torch.Tensor = network.scorer(domain)(users, (domain.corpus.lengths - held_out).astype(np.int32))
    return scores


def ordered(network: Any, corpus: Corpus) -> Array:
    return scored(network, Domain(0, corpus)).argsort(1, descending=True).numpy()


def hits_at_2(network: Any, corpus: Corpus) -> float:
    return float((rank_targets(network.scorer(Domain(0, corpus)), corpus, "test") <= 2).mean())


def perfect_labels(world: Any, truth: Truth, rows: Array | None = None) -> Artifact:
    """A teacher that knows which items the rule puts at each position."""
    scores = 9.0 * truth.best(world.corpus)
    labels: Artifact = world.label("oracle", scores, 5, rows=rows, state=scores, vectors=np.eye(world.corpus.n_items))
    return labels


def lesson(world: Any, labels: Artifact, option: DistillSettings) -> Lesson:
    teaching = Teaching.load(world.corpus, {"oracle": labels}, option, CPU)
    return Lesson(teaching, np.zeros(world.corpus.n_users))
