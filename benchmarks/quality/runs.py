"""Trains variants as sweeps over the cached labels and finds their runs again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from variants import Variant

from ckd.pipeline.choice import Choice
from ckd.pipeline.commands import Request
from ckd.pipeline.config.load import load_configuration
from ckd.pipeline.plan import Plan
from ckd.pipeline.report.teachers import teacher_ranks
from ckd.pipeline.sweep.sweep import sweep
from ckd.stages.evaluate.metrics import row_metrics
from ckd.storage.artifact import Artifact
from ckd.storage.errors import UserError
from ckd.storage.runs import read_ranks

CUTOFFS = (10, 50)
Rows = Mapping[str, np.ndarray]
"""Metric to its value of each user, float64 [n_users]."""
Found = dict[tuple[str, str, str], list[Artifact]]
"""(domain, student, variant) to its runs, one per seed."""


@dataclass(frozen=True)
class Experiment:
    """Students of some domains under some variants.

    Attributes:
        file: the configuration.
        overrides: of it, for all variants alike.
        seeds: how many.
    """

    file: Path
    overrides: tuple[str, ...]
    seeds: int

    def request(self, variant: Variant, seed: int | None = None) -> Request:
        """Return the configuration of a variant."""
        own = () if seed is None else (f"seed={seed}",)
        return Request(self.file, ("distill.baseline=false", *self.overrides, *variant.overrides, *own))

    def train(self, variants: Sequence[Variant], jobs: int) -> None:
        """Train what is not in the store."""
        for variant in variants:
            print(f"<!-- {variant.name} -->", flush=True)
            sweep(self.request(variant), (), self.seeds, jobs, None)

    def find(self, variants: Sequence[Variant]) -> Found:
        """Return the runs that are in the store; those that are missing are left out."""
        found: Found = {}
        for variant in variants:
            first = self.request(variant).load().seed
            for seed in range(first, first + self.seeds):
                plan = Plan(self.request(variant, seed).load())
                for run in plan.runs():
                    artifact = plan.store.find(plan.run(run))
                    for domain in run.domains if artifact is not None else ():
                        found.setdefault((domain, run.student, variant.name), []).append(artifact)
        return found


def only(file: Path, overrides: Sequence[str], students: Sequence[str], domains: Sequence[str]) -> tuple[str, ...]:
    """Return some overrides and more, which leave some students and domains; none named leaves all.

    Raises:
        SystemExit: the configuration has no such student or domain.
    """
    configuration = load_configuration(file, tuple(overrides))
    try:
        Choice(tuple(students), tuple(domains)).check(configuration)
    except UserError as error:
        raise SystemExit(str(error).replace("--student:", "--students:").replace("--domain:", "--domains:")) from None
    kept = list(overrides)
    for section, names in (("students", students), ("domains", domains)):
        if names:
            held = {name: getattr(configuration, section)[name].model_dump(mode="json") for name in names}
            kept.append(f"{section}={json.dumps(held)}")
    return tuple(kept)


def values(run: Artifact, domain: str, split: str = "test") -> Rows:
    """Return each metric of each user's target."""
    return row_metrics(read_ranks(run, domain, split), CUTOFFS)


def teacher_values(plan: Plan, teacher: str, domain: str) -> Rows | None:
    """Return each metric of each user's test target, or None where the store has no labels of that teacher."""
    artifact = plan.store.find(plan.labels(teacher, domain)) if teacher in plan.taught_by(domain) else None
    return None if artifact is None else row_metrics(teacher_ranks(artifact, "test"), CUTOFFS)


def mean_over_seeds(runs: Sequence[Artifact], domain: str) -> Rows:
    """Return each metric of each user, the mean over seeds."""
    each = [values(run, domain) for run in runs]
    return {name: np.mean([one[name] for one in each], axis=0) for name in each[0]}
