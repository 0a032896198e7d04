"""What a student is taught: the truth, what each teacher says of it, what that weighs, and when it is served.

Computed from the corpus and the cached labels by the functions that the training uses; nothing is trained.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ckd.stages.batching import training_windows
from ckd.stages.distill.curriculum import combined, first_epoch, ranks, served, term_values
from ckd.stages.distill.explanation import Explanation, Item, Position, Said, State, Suggestion, Term, User
from ckd.stages.distill.holding import scratch_of
from ckd.stages.distill.settings import CurriculumSettings, DistillSettings
from ckd.stages.distill.teaching import stored_labels, taught_labels, weigh_all
from ckd.stages.distill.weighting import scaled_gate
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import HELD_OUT, Corpus
from ckd.storage.sql import Contents, ask, open_views
from ckd.storage.sql.views import quoted

Bools = npt.NDArray[np.bool_]
Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


def explain(
    corpus: Corpus,
    artifact: Artifact,
    labels: Mapping[str, Artifact],
    settings: DistillSettings,
    max_length: int,
    users: Sequence[int] | None = None,
    positions: int = 3,
    items: int = 3,
    position_weights: Callable[[int], Float64s] = np.ones,
) -> Explanation:
    """Explain what a student with these settings is taught.

    Args:
        corpus: the domain.
        artifact: its corpus artifact.
        labels: teacher to its labels of the domain.
        settings: of the training.
        max_length: items of a history that the student sees.
        users: codes; by default the easiest, the median and the hardest that can be trained on.
        positions: how many training positions of each user, the last ones.
        items: how many of each teacher's stored items.
        position_weights: of the student, as :class:`ckd.stages.students.contract.TeachesUnevenly` has it.

    Raises:
        UserError: a teacher has no label to train on, or none that its losses can be computed from, no sequence can be
            trained on, or a difficulty is not valid.
    """
    domain = _Domain(corpus, artifact, labels, settings, max_length, position_weights)
    chosen: Mapping[int, str | None] = domain.examples() if users is None else dict.fromkeys(users)
    return Explanation(
        max_length=max_length,
        epoch=domain.epoch,
        share=len(domain.served) / len(domain.cut.user),
        sequences=len(domain.cut.user),
        trained=int(domain.seen.sum()),
        cut=int((domain.cut.position - 1).sum()),
        unlabelled=int((domain.seen & ~domain.labelled).sum()),
        users=tuple(domain.user(user, picked, positions, items) for user, picked in chosen.items()),
    )


def user_code(corpus: Corpus, user_id: str) -> int | None:
    """Return the code of a user whose identifier is given as text, or None."""
    found = pc.index(corpus.user_ids.cast(pa.large_string()), pa.scalar(user_id, pa.large_string())).as_py()
    return None if found < 0 else int(found)


def nearest_users(corpora: Mapping[str, Artifact], user_id: str, count: int = 3) -> list[str]:
    """Return the users of some domains whose identifiers differ in the fewest characters, nearest first."""
    distance = f"damerau_levenshtein(user_id::varchar, {quoted(user_id)})"
    query = (
        f"select user_id::varchar as near from sequences group by near order by min({distance}), near limit {count:d}"
    )
    with open_views(Contents(corpora)) as connection, ask(connection, query) as answer:
        return [name for batch in answer.batches() for name in batch.column("near").to_pylist()]


class _Domain:
    """All that the explanation of any user of a domain needs.

    Attributes:
        cut: the part of each sequence that the student sees.
        epoch, served: whose gates are shown, and the rows of ``cut`` that it serves.
        seen: bool [n_positions], whether a position is in ``cut``.
        labelled: bool [n_positions], whether any teacher has a label.
        gate: float64 [n_positions], scaled over the epoch; NaN where the epoch does not use it.
    """

    def __init__(
        self,
        corpus: Corpus,
        artifact: Artifact,
        labels: Mapping[str, Artifact],
        settings: DistillSettings,
        max_length: int,
        position_weights: Callable[[int], Float64s],
    ) -> None:
        labels = dict(sorted(labels.items()))  # as the training orders them
        self._corpus, self._settings, self._position_weights = corpus, settings, position_weights
        self._items = corpus.items.select(["item_id", "title"])
        self.cut = training_windows(corpus, max_length)
        self._values, self._hardness = _difficulty(corpus, artifact, labels, settings.curriculum)
        self._ranks = {term: ranks(value) for term, value in self._values.items()}
        hardness = self._hardness[self.cut.user]
        self._first = np.zeros(corpus.n_users, np.int64)
        self._first[self.cut.user] = first_epoch(hardness, settings.curriculum)
        self.epoch = int(min(self._first.max(), settings.epochs))
        self.served = served(hardness, self.epoch, settings.curriculum)
        scratch = scratch_of(labels.values(), settings)
        self._stored = {name: stored_labels(name, found, corpus, settings, scratch) for name, found in labels.items()}
        self._weights = weigh_all(list(self._stored.values()), corpus.n_items, settings.weighting)
        self._taught = {
            name: taught_labels(name, labels[name], labelled, corpus.n_items, settings)
            for name, labelled in self._stored.items()
        }
        self.labelled: Bools = np.any(self._weights.teacher, axis=0)
        self.seen = self.cut.held(corpus)
        used = self.labelled & self.cut.take(self.served).held(corpus)
        self.gate = np.where(used, scaled_gate(self._weights.gate, used), np.nan)

    def examples(self) -> dict[int, str | None]:
        """Return the users to show where none is named, and what each is an example of."""
        order = self.cut.user[np.argsort(self._hardness[self.cut.user], kind="stable")]
        names = ("easiest", "median", "hardest") if self._values else ("first", "middle", "last")
        places = (0, (len(order) - 1) // 2, len(order) - 1)
        chosen: dict[int, str | None] = {}
        for name, place in zip(names, places, strict=True):
            chosen.setdefault(int(order[place]), name)
        return chosen

    def user(self, user: int, picked: str | None, positions: int, items: int) -> User:
        """Explain one user."""
        length = int(self._corpus.lengths[user])
        first_place = int(self._corpus.position_offsets[user])
        trainable = max(length - HELD_OUT - 1, 0)
        places = np.arange(first_place, first_place + trainable)
        seen = places[self.seen[places]]
        counts = np.concatenate([np.zeros(trainable - len(seen)), self._position_weights(len(seen))])
        first = int(self._first[user])
        return User(
            user_id=self._corpus.user_ids[user].as_py(),
            picked=picked,
            items=length,
            cut=trainable - len(seen),
            trained=len(seen),
            unlabelled=int((~self.labelled[seen]).sum()),
            difficulty=float(self._hardness[user]) if self._values else None,
            terms=dict(self._terms(user)),
            first_epoch=first if 0 < first <= self._settings.epochs else None,
            positions=tuple(
                self._position(user, int(place), float(count), items)
                for place, count in list(zip(places, counts, strict=True))[-positions:]
            ),
        )

    def _terms(self, user: int) -> Iterator[tuple[str, Term]]:
        for name, weight in self._settings.curriculum.difficulty.items():
            if name in self._values:
                value = float(self._values[name][user])
                yield name, Term(value if np.isfinite(value) else None, float(self._ranks[name][user]), weight)

    def _position(self, user: int, place: int, counts: float, items: int) -> Position:
        position = place - int(self._corpus.position_offsets[user]) + 1
        state = self._state(user, place)
        used = state in ("taught", "truth")
        share = self._settings.alpha if state == "taught" else 0.0
        return Position(
            position=position,
            state=state,
            target=Item(*self._item(int(self._corpus.sequence_of(user)[position]))),
            counts=counts if used else None,
            truth_weight=counts * (1 - share) if used else None,
            gate=float(self.gate[place]) if state == "taught" else None,
            teachers={
                name: self._said(p, name, place, counts if state == "taught" else None, items)
                for p, name in enumerate(self._taught)
            },
        )

    def _state(self, user: int, place: int) -> State:
        if not self.seen[place]:
            return "cut"
        if self._first[user] > self._settings.epochs:
            return "unserved"
        return "taught" if self.labelled[place] else "truth"

    def _said(self, p: int, name: str, place: int, counts: float | None, items: int) -> Said | None:
        stored, of_stored = self._stored[name]
        own = int(of_stored[place])
        if own < 0:
            return None
        taught, of_taught = self._taught[name]
        row, weight = int(of_taught[place]), float(self._weights.teacher[p, place])
        best = zip(taught.items[row, :items].tolist(), taught.logprobs[row, :items].astype(np.float64), strict=True)
        return Said(
            target_rank=int(stored.target_rank[own]),
            target_probability=float(np.exp(stored.target_logprob[own].astype(np.float64))),
            confidence=float(self._weights.confidence[p, place]),
            consistency=float(self._weights.consistency[p, place]),
            weight=weight,
            loss_weight=None if counts is None else counts * self._settings.alpha * float(self.gate[place]) * weight,
            items=tuple(Suggestion(*self._item(code), float(np.exp(logprob))) for code, logprob in best),
        )

    def _item(self, code: int) -> tuple[str | int, str]:
        return self._items["item_id"][code].as_py(), self._items["title"][code].as_py() or ""


def _difficulty(
    corpus: Corpus, artifact: Artifact, labels: Mapping[str, Artifact], settings: CurriculumSettings
) -> tuple[dict[str, Float64s], Float64s]:
    """Return the values of each term, none without a curriculum, and d(u), float64 [n_users] each."""
    if settings.pacing == "none":
        return {}, np.zeros(corpus.n_users)
    values = term_values(corpus, artifact, labels, settings.difficulty)
    return values, combined(values, settings.difficulty)
