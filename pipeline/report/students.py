"""The tables that `ckd distill` ends with: students without and with distillation, beside their teachers."""

from collections.abc import Iterator, Mapping
from typing import Any

from ckd.pipeline.plan import Run
from ckd.pipeline.progress import console
from ckd.pipeline.report.layout import Row, number, print_numbers
from ckd.pipeline.report.teachers import teacher_ranks
from ckd.stages.evaluate.bootstrap import Gain, relative_gain, relative_gains
from ckd.stages.evaluate.metrics import Ranks, metric_names, metrics, row_metrics
from ckd.stages.evaluate.settings import EvaluateSettings
from ckd.storage.artifact import Artifact
from ckd.storage.runs import read_ranks

Runs = Mapping[Run, Artifact]
"""Each student that was trained, and where it is kept."""
Labels = Mapping[str, Mapping[str, Artifact]]
"""Domain to teacher to its labels."""


def student_tables(runs: Runs, labels: Labels, evaluate: EvaluateSettings, alpha: float) -> None:
    """Print the test metrics of teachers and students, the gain of distillation, and what serving costs.

    Args:
        runs, labels: what is compared.
        evaluate: how.
        alpha: the share of the teachers' losses with which the students were distilled.
    """
    rows: list[Row] = []
    partial: list[str] = []
    for domain in dict.fromkeys(domain for run in runs for domain in run.domains):
        users = next(len(read_ranks(kept, domain, "test")) for run, kept in runs.items() if domain in run.domains)
        for teacher, artifact in labels.get(domain, {}).items():
            ranks = teacher_ranks(artifact, "test")
            own = metrics(ranks, evaluate.cutoffs)
            rows.append([domain, f"{teacher} (teacher)", "", *_cells(own), *_cost(artifact.facts)])
            if 0 < len(ranks) < users:
                partial.append(
                    f"{teacher} in {domain}: measured on the {len(ranks):,} of {users:,} users it has labels of."
                )
        for student in dict.fromkeys(run.student for run in runs if domain in run.domains):
            rows += _student_rows(runs, domain, student, evaluate)
        rows.append(None)
    numbers = [*map(_heading, metric_names(evaluate.cutoffs)), "parameters", "ms/1k users"]
    print_numbers(console, ["domain", "model", "distilled"], numbers, rows[:-1])
    masked = "Histories are masked for students, not for teachers. " if evaluate.mask_history else ""
    console.print(
        "Test targets, full ranking; ties count against students, for teachers the lower item code comes first. "
        f"{masked}difference: percent, with the paired bootstrap 95 % interval over users ({evaluate.bootstrap:,} "
        "resamples). ms/1k users: the ten best items of 1,000 users, item vectors precomputed, measured when the "
        "labels or the run were made."
    )
    for line in (*partial, *_harmed(runs, evaluate, alpha)):
        console.print(line)


def _harmed(runs: Runs, evaluate: EvaluateSettings, alpha: float) -> Iterator[str]:
    """Yield a line about each student that is worse with its teachers, on validation: by test nothing is chosen."""
    for run, kept in runs.items():
        plain = runs.get(run._replace(distilled=False))
        if not run.distilled or plain is None:
            continue
        for domain in run.domains:
            before, after = (read_ranks(one, domain, "valid") for one in (plain, kept))
            harm = significant_harm(before, after, evaluate.bootstrap)
            if harm is not None:
                yield (
                    f"{run.student} in {domain}: worse with its teachers than without, on validation (NDCG@10 "
                    f"{harm.percent:+.1f} %, {harm.low:+.1f} .. {harm.high:+.1f}); let them weigh less: try the same "
                    f"command with --grid distill.alpha={alpha / 4:g},{alpha / 2:g}"
                )


def significant_harm(plain: Ranks, distilled: Ranks, resamples: int) -> Gain | None:
    """Return the gain of distillation in NDCG@10 where it is a loss that users drawn anew would see, else None.

    Args:
        plain, distilled: of the same users.
        resamples: of the bootstrap; the interval of 95 % must lie below zero.
    """
    before, after = (row_metrics(ranks, (10,))["ndcg@10"] for ranks in (plain, distilled))
    if after.mean() >= before.mean():
        return None
    gain = relative_gain(before, after, resamples)
    return gain if gain.high < 0 else None


def _student_rows(runs: Runs, domain: str, student: str, evaluate: EvaluateSettings) -> Iterator[Row]:
    ranks = {}
    for run, kept in runs.items():
        if run.student != student or domain not in run.domains:
            continue
        ranks[run.distilled] = read_ranks(kept, domain, "test")
        values = metrics(ranks[run.distilled], evaluate.cutoffs)
        yield [domain, student, "yes" if run.distilled else "no", *_cells(values), *_student_cost(kept, domain)]
    if len(ranks) == 2:
        gains = gains_of(ranks[False], ranks[True], evaluate)
        yield [domain, student, "difference", *(f"{gain.percent:+.1f} %" for gain in gains.values()), "", ""]
        yield ["", "", "95 %", *(f"{gain.low:+.1f} .. {gain.high:+.1f}" for gain in gains.values()), "", ""]


def gains_of(plain: Ranks, distilled: Ranks, evaluate: EvaluateSettings) -> dict[str, Gain]:
    """Return the gain of distillation in each metric."""
    before, after = row_metrics(plain, evaluate.cutoffs), row_metrics(distilled, evaluate.cutoffs)
    return relative_gains(before, after, evaluate.bootstrap)


def _heading(name: str) -> str:
    return name.replace("recall", "R").replace("ndcg", "N").upper()


def _cells(values: Mapping[str, float]) -> list[str]:
    return [number(value, ".4f") for value in values.values()]


def _student_cost(run: Artifact, domain: str) -> list[str]:
    return _cost({**run.facts, "ms_per_1000_users": run.facts["ms_per_1000_users"][domain]})


def _cost(facts: Mapping[str, Any]) -> list[str]:
    return [number(facts["parameters"], ","), number(facts["ms_per_1000_users"], ".1f")]
