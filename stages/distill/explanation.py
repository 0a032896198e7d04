"""The parts of an explanation: domain, user, position, teacher, item. ``dataclasses.asdict`` makes JSON of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

State = Literal["taught", "truth", "cut", "unserved"]
"""Of a training position: a teacher has a label; none has, and the student learns the truth alone; the student never
sees it, for its window ends before; the training ends before the curriculum serves it."""


@dataclass(frozen=True)
class Item:
    """An item as the user knows it."""

    item_id: str | int
    title: str


@dataclass(frozen=True)
class Suggestion(Item):
    """One of the items that a teacher stored, with the teacher's probability of it."""

    probability: float


@dataclass(frozen=True)
class Said:
    """What one teacher says at one position, and what it counts.

    Attributes:
        target_rank, target_probability: of the truth, over the whole catalogue.
        confidence, consistency, weight: c_p, s_p and w_p.
        loss_weight: alpha * g * w_p times what the position counts, what multiplies this teacher's losses, in the mean
            over steps if it is heard at a share of the positions (``taught_share``); None where no epoch uses the
            label.
        items: the teacher's best ones, best first.
    """

    target_rank: int
    target_probability: float
    confidence: float
    consistency: float
    weight: float
    loss_weight: float | None
    items: tuple[Suggestion, ...]


@dataclass(frozen=True)
class Position:
    """One training position.

    Attributes:
        position: length of the history.
        state: whether it is taught, and if not, why.
        target: the truth.
        counts: what the student lets the position count in an epoch, in the mean over draws; None where no epoch uses
            the position.
        truth_weight: what multiplies the cross-entropy of the truth; None where no epoch uses the position.
        gate: g, scaled over the epoch; None unless the position is taught.
        teachers: what each teacher says; None where it has no label.
    """

    position: int
    state: State
    target: Item
    counts: float | None
    truth_weight: float | None
    gate: float | None
    teachers: Mapping[str, Said | None]


@dataclass(frozen=True)
class Term:
    """One term of a user's difficulty: its value (None: the user has none), its rank in [0, 1] and its weight."""

    value: float | None
    rank: float
    weight: float


@dataclass(frozen=True)
class User:
    """One user's sequence.

    Attributes:
        user_id: as in the raw data.
        picked: what the user is an example of; None if asked for by name.
        items: length of the sequence.
        cut, trained: how many training positions, from 1 on, the student never sees, and how many follow that it
            does; the last two positions of the sequence are held out.
        unlabelled: of those trained, how many no teacher has a label of.
        difficulty: d(u) in [0, 1]; None without a curriculum.
        terms: of the difficulty.
        first_epoch: the first that serves the user; None if none does.
        positions: the last of the training positions.
    """

    user_id: str | int
    picked: str | None
    items: int
    cut: int
    trained: int
    unlabelled: int
    difficulty: float | None
    terms: Mapping[str, Term]
    first_epoch: int | None
    positions: tuple[Position, ...]


@dataclass(frozen=True)
class Explanation:
    """What the students of one domain are taught.

    Attributes:
        max_length: items of a history that the student sees.
        epoch: whose gates are shown: the first in which every sequence is served, or the last that is trained.
        share: of the sequences, those that this epoch serves.
        sequences: that can be trained on.
        trained, cut, unlabelled: training positions in all, as in :class:`User`.
        users: some of them.
    """

    max_length: int
    epoch: int
    share: float
    sequences: int
    trained: int
    cut: int
    unlabelled: int
    users: tuple[User, ...]
