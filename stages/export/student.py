"""A trained student in the form in which it is exported, checked against what it was evaluated with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from ckd.stages.batching import histories
from ckd.stages.students.contract import Domain, ScoresHistories, Student
from ckd.stages.students.serving import DotProductServing, Serving
from ckd.storage.artifact import Artifact
from ckd.storage.errors import UserError
from ckd.storage.runs import domains_of, read_metrics

SAMPLE = 64
"""Users whose histories are scored both ways."""
CLOSE = 1e-4
"""Largest difference that is put down to rounding, relative to the largest score."""


@dataclass(frozen=True)
class Exported:
    """One domain of a student.

    Attributes:
        run: the student's run.
        name: of the domain.
        domain: the domain.
        student: the network, in evaluation mode.
        serving: the function of histories that is exported.
    """

    run: Artifact
    name: str
    domain: Domain
    student: Student
    serving: Serving

    @property
    def vectors(self) -> DotProductServing | None:
        """``serving`` if it scores by a dot product."""
        return self.serving if isinstance(self.serving, DotProductServing) else None


def exported(run: Artifact, student: Student, name: str, domain: Domain) -> Exported:
    """Return what is exported of a student.

    Raises:
        UserError: its scores are no function of the history, or not the one that it says.
    """
    if not isinstance(student, ScoresHistories):
        raise UserError(
            f"{subject_of(run)} scores the users it was trained with, not histories: only `ckd recommend` can serve it"
        )
    found = Exported(run, name, domain, student, student.serving(domain))
    users = sample(domain, SAMPLE)
    ends = domain.corpus.lengths[users].astype(np.int32)
    difference = largest_difference(served_scores(found, users), student.scorer(domain)(users, ends))
    if not difference <= CLOSE:
        raise UserError(
            f"{subject_of(run)}: what it would be served with scores otherwise than what it was evaluated with "
            f"(by {difference:.1e}); mend `serving` of that kind of student"
        )
    return found


def subject_of(run: Artifact) -> str:
    """Return what a line about a student begins with."""
    settings = run.inputs["settings"]
    return f"student {run.inputs['student']} of kind {settings['kind']}"


def sample(domain: Domain, n: int) -> npt.NDArray[np.int32]:
    """Return at most ``n`` users, spread evenly over the domain's, int32."""
    n = min(n, domain.corpus.n_users)
    return np.linspace(0, domain.corpus.n_users - 1, n).round().astype(np.int32)


def whole_histories(found: Exported, users: npt.NDArray[np.int32]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all that the student sees of these users' sequences: int64 [B, L], int64 [B]."""
    corpus = found.domain.corpus
    items, ends = histories(corpus, users, corpus.lengths[users].astype(np.int32), found.student.max_length)
    return items, ends + 1


@torch.inference_mode()
def served_scores(found: Exported, users: npt.NDArray[np.int32]) -> torch.Tensor:
    """Return the scores of all items for these users' whole sequences, float [B, n_items]."""
    scores: torch.Tensor = found.serving(*whole_histories(found, users))
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
        "max_length": found.student.max_length,
        "metrics": {domain: read_metrics(run, domain) for domain in domains_of(run)},
    }


def names_of(found: Exported) -> pa.Table:
    """Return ``item`` (code), ``item_id`` and ``title`` of the domain's items, in order of code."""
    return found.domain.corpus.items.select(["item", "item_id", "title"])
