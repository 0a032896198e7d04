"""One run of a plan: all that a sweep knows of how students are trained."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckd.pipeline.choice import EVERYTHING, Choice
from ckd.pipeline.plan import Plan, Run
from ckd.storage.artifact import Artifact
from ckd.storage.keys import Address

if TYPE_CHECKING:
    import torch

    from ckd.pipeline.sweep.plan import SharingPlan


@dataclass(frozen=True)
class Job:
    """One run to train: the plan that it is of, its name there, its address."""

    plan: "SharingPlan"
    run: Run
    address: Address


def runs_of(plan: "SharingPlan", choice: Choice = EVERYTHING) -> Iterator[Job]:
    """Yield the chosen runs of a plan."""
    for run in choice.runs(plan):
        yield Job(plan, run, plan.run(run))


def labels_of(plan: Plan, run: Run) -> dict[str, dict[str, Artifact]]:
    """Return the labels that a run learns from, by domain and teacher; none without distillation.

    Raises:
        UserError: some are not in the store.
    """
    return {domain: plan.ready_labels(domain) for domain in run.domains} if run.distilled else {}


def trained(job: Job, device: "torch.device") -> Artifact:
    """Return the artifact of a run, from the store or trained now."""
    from ckd.pipeline.tasks.distill import run_of  # torch takes seconds to import

    return run_of(job.plan, job.run, labels_of(job.plan, job.run), device)
