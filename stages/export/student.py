"""A trained student in the form in which it is exported, checked against what it was evaluated with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from ckd.stages.batching import histories
from ckd.stages.students.contract import Domain, ScoresHistories, ScoresUsers, Student
from ckd.stages.students.serving import DotProductServing, Serving, UserServing
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import HELD_OUT
from ckd.storage.errors import UserError
from ckd.storage.runs import domains_of, read_metrics

SAMPLE = 64
"""Users whose histories are scored both ways."""
CLOSE = 1e-4
"""Largest difference that is put down to rounding, relative to the largest score."""


Users = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Exported:
    """One domain of a student.

    Attributes:
        run: the student's run.
        name: of the domain.
        domain: the domain.
        student: the network, in evaluation mode.
        serving: the function of histories, or of users, that is exported.
    """

    run: Artifact
    name: str
    domain: Domain
    student: Student
    serving: Serving | UserServing

    @property
    def of_users(self) -> bool:
        """Whether the function is of users."""
        return isinstance(self.serving, UserServing)

    @property
    def vectors(self) -> DotProductServing | UserServing | None:
        """``serving`` if it scores by a dot product."""
        return self.serving if isinstance(self.serving, DotProductServing | UserServing) else None

    def given(self, users: Users) -> dict[str, torch.Tensor]:
        """Return the arguments with which ``serving`` scores users as they are evaluated after their whole sequences.

        Args:
            users: int32 [B], codes.

        Returns:
            ``items`` int64 [B, L] and ``lengths`` int64 [B]: of a function of histories all that it sees of them.
            Of one of users these are the items that come behind all others, and ``users`` int64 [B] is before them.
        """
        corpus = self.domain.corpus
        if not self.of_users:
            items, ends = histories(corpus, users, corpus.lengths[users].astype(np.int32), self.student.max_length)
            return {"items": items, "lengths": ends + 1}
        trained = (corpus.lengths[users] - HELD_OUT).astype(np.int32)
        items, ends = histories(corpus, users, trained, int(trained.max()))
        behind = isinstance(self.student, ScoresUsers) and not self.student.repeats
        lengths = ends + 1 if behind else torch.zeros_like(ends)
        return {"users": torch.from_numpy(users.astype(np.int64)), "items": items, "lengths": lengths}


def exported(run: Artifact, student: Student, name: str, domain: Domain) -> Exported:
    """Return what is exported of a student.

    Raises:
        UserError: it offers no function of histories or of users, or its scores are not what that gives.
    """
    if isinstance(student, ScoresHistories):
        serving: Serving | UserServing = student.serving(domain)
    elif isinstance(student, ScoresUsers):
        serving = student.user_serving(domain)
    else:
        raise UserError(
            f"{subject_of(run)} offers neither `serving` nor `user_serving`: only `ckd recommend` can serve it"
        )
    found = Exported(run, name, domain, student, serving)
    users = sample(domain, SAMPLE)
    ends = domain.corpus.lengths[users].astype(np.int32)
    difference = largest_difference(served_scores(found, users), student.scorer(domain)(users, ends))
    if not difference <= CLOSE:
        raise UserError(
            f"{subject_of(run)}: what it would be served with scores otherwise than what it was evaluated with "
            f"(by {difference:.1e}); mend `{'user_serving' if found.of_users else 'serving'}` of that kind of student"
        )
    return found


def subject_of(run: Artifact) -> str:
    """Return what a line about a student begins with."""
    settings = run.inputs["settings"]
    return f"student {run.inputs['student']} of kind {settings['kind']}"


def sample(domain: Domain, n: int) -> Users:
    """Return at most ``n`` users, spread evenly over the domain's, int32."""
    n = min(n, domain.corpus.n_users)
    return np.linspace(0, domain.corpus.n_users - 1, n).round().astype(np.int32)


@torch.inference_mode()
def served_scores(found: Exported, users: Users) -> torch.Tensor:
    """Return the scores of all items for these users' whole sequences, float [B, n_items]."""
    scores: torch.Tensor = found.serving(**found.given(users))
    return scores


def largest_difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the largest difference of two score matrices, relative to the largest score but at least absolute."""
    scale = wanted.abs().max().clamp(min=1)
    return float((found - wanted).abs().max() / scale)


def described(found: Exported) -> dict[str, Any]:
    """Return what ``config.json`` says of the student, whatever the format."""
    run = found.run
    return {
        "run": run.key,
        "tool": run.manifest["tool"],
        "student": run.inputs["student"],
        "distilled": run.inputs["distilled"],
        "settings": run.inputs["settings"],
        "domain": found.name,
        "n_items": found.domain.corpus.n_items,
        **({} if found.of_users else {"max_length": found.student.max_length}),
        "metrics": {domain: read_metrics(run, domain) for domain in domains_of(run)},
    }


def users_of(found: Exported) -> pa.Table:
    """Return ``user`` (code) and ``user_id`` of the domain's users, in order of code."""
    ids = found.domain.corpus.user_ids
    return pa.table({"user": pa.array(np.arange(len(ids), dtype=np.int32)), "user_id": ids})


def names_of(found: Exported) -> pa.Table:
    """Return ``item`` (code), ``item_id`` and ``title`` of the domain's items, in order of code."""
    return found.domain.corpus.items.select(["item", "item_id", "title"])
