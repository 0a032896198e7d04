"""One run of a plan: all that a sweep knows of how students are trained."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckd.pipeline.plan import Plan
from ckd.storage.artifact import Artifact
from ckd.storage.keys import Address

if TYPE_CHECKING:
    import torch

    from ckd.pipeline.sweep.plan import SharingPlan

Run = tuple[str, str, bool]
"""What a plan calls a run: student, domain, distilled."""


@dataclass(frozen=True)
class Job:
    """One run to train: the plan that it is of, its name there, its address."""

    plan: "SharingPlan"
    run: Run
    address: Address


def runs_of(plan: "SharingPlan") -> Iterator[Job]:
    """Yield the runs of a plan."""
    for run in plan.runs():
        yield Job(plan, run, plan.run(*run))


def labels_of(plan: Plan, run: Run) -> dict[str, Artifact]:
    """Return the labels that a run learns from, by teacher; none without distillation.

    Raises:
        UserError: some are not in the store.
    """
    _, domain, distilled = run
    return plan.ready_labels(domain) if distilled else {}


def domains_of(run: Run) -> list[str]:
    """Return the domains that a run is trained on."""
    return [run[1]]


def title(run: Run) -> str:
    """Return a run in words."""
    student, domain, distilled = run
    return f"{student}, {domain}, {'distilled' if distilled else 'plain'}"


def trained(job: Job, device: "torch.device") -> Artifact:
    """Return the artifact of a run, from the store or trained now."""
    from ckd.pipeline.tasks.distill import run_of  # torch takes seconds to import

    student, domain, _ = job.run
    return run_of(job.plan, student, domain, labels_of(job.plan, job.run), device)
