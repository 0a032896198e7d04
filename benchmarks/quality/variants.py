"""What is compared: named overrides of one configuration."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """A way to train the students.

    Attributes:
        name: in tables.
        overrides: of the configuration, as for ``--set``.
    """

    name: str
    overrides: tuple[str, ...] = ()


NONE = Variant("no distillation", ("distill.alpha=0",))


def by_teacher(teachers: Sequence[str]) -> list[Variant]:
    """Return no distillation, each teacher alone, and all of them."""
    alone = [Variant(name, (f"distill.teachers=[{name}]",)) for name in teachers]
    return [NONE, *alone, Variant("all teachers")] if len(alone) > 1 else [NONE, *alone]


_NO_CONFIDENCE = "distill.weighting.confidence=none"
_NO_CONSISTENCY = "distill.weighting.consistency=none"

ABLATION = [
    NONE,
    Variant("as configured"),
    Variant("without curriculum", ("distill.curriculum.pacing=none",)),
    Variant("without confidence", (_NO_CONFIDENCE,)),
    Variant("without consistency", (_NO_CONSISTENCY,)),
    Variant("uniform weights", (_NO_CONFIDENCE, _NO_CONSISTENCY)),
    Variant("without in_batch", ("distill.loss={top_k: 1}",)),
    Variant("without top_k", ("distill.loss={in_batch: 1}",)),
    Variant("top_k_plus_student for top_k", ("distill.loss={in_batch: 1, top_k_plus_student: 1}",)),
    Variant("rank for top_k", ("distill.loss={in_batch: 1, rank: 1}",)),
    Variant("items start at the teachers'", ("distill.item_start=teacher",)),
    Variant("running mean of weights", ("distill.average=0.99",)),
    Variant("teachers heard at half of the positions", ("distill.taught_share=0.5",)),
    Variant("teachers heard at a quarter", ("distill.taught_share=0.25",)),
    Variant("one-hot: the teachers' best item", ("distill.control=one_hot", "distill.loss={top_k: 1}")),
    Variant("labels shuffled among positions", ("distill.control=shuffled",)),
]


@dataclass(frozen=True)
class KeptItems(Variant):
    """Labels as if no more than k items of each position were stored, with the teacher's states or without."""

    k: int = 0
    states: bool = False


def _kept(k: int, states: bool) -> KeptItems:
    losses = "{in_batch: 1, top_k: 1}" if states else "{top_k: 1}"
    name = f"k = {k}, {'with states' if states else 'without'}"
    return KeptItems(name, (f"distill.teacher_items={k}", f"distill.loss={losses}"), k, states)


KEPT_ITEMS = [_kept(k, states) for k in (5, 10, 20, 50, 100, 200) for states in (True, False)]

_POINTS = {
    "sasrec": ({"learning_rate": 5e-4}, {"learning_rate": 2e-3}, {"dropout": 0.5}),
    "esasrec": ({"learning_rate": 5e-4}, {"learning_rate": 2e-3}, {"dropout": 0.5}),
    "gru4rec": ({"learning_rate": 1e-3}, {"learning_rate": 4e-3}, {"dropout": 0.5}),
    "bert4rec": ({"learning_rate": 1e-3}, {"learning_rate": 4e-3}, {"dropout": 0.4}),
    "fm": ({"learning_rate": 1.5e-3}, {"learning_rate": 6e-3}, {"dropout": 0.3}),
    "deepfm": ({"learning_rate": 1.5e-3}, {"learning_rate": 6e-3}, {"dropout": 0.3}),
    "lightgcn": ({"learning_rate": 2.5e-3}, {"learning_rate": 1e-2}, {"layers": 2}),
}
"""The grid of each kind beside its defaults: half and twice the learning rate, another value of one more."""


def recipes(student: str, kind: str) -> list[Variant]:
    """Return the defaults of a kind and the other points of its grid, without distillation and with all teachers."""
    arms = (NONE, Variant("all teachers"))
    found = list(arms)
    for point in _POINTS[kind]:
        name = ", ".join(f"{key} {value:g}" for key, value in point.items())
        own = tuple(f"students.{student}.{key}={value}" for key, value in point.items())
        found += [Variant(f"{arm.name}, {name}", (*arm.overrides, *own)) for arm in arms]
    return found
