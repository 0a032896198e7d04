"""The tables that `ckd distill` ends with: students without and with distillation, beside their teachers."""

from collections.abc import Iterator, Mapping

from ckd.pipeline.progress import console
from ckd.pipeline.report.layout import Row, number, print_numbers
from ckd.pipeline.report.teachers import teacher_ranks
from ckd.stages.evaluate.bootstrap import Gain, relative_gains
from ckd.stages.evaluate.metrics import Ranks, metric_names, metrics, row_metrics
from ckd.stages.evaluate.settings import EvaluateSettings
from ckd.storage.artifact import Artifact
from ckd.storage.runs import read_ranks

Runs = Mapping[tuple[str, str, bool], Artifact]
"""(domain, student, distilled) to its run."""
Labels = Mapping[str, Mapping[str, Artifact]]
"""Domain to teacher to its labels."""


def student_tables(runs: Runs, labels: Labels, evaluate: EvaluateSettings) -> None:
    """Print the test metrics of teachers and students, the gain of distillation, and what serving costs."""
    rows: list[Row] = []
    partial: list[str] = []
    for domain in dict.fromkeys(domain for domain, _, _ in runs):
        users = next(len(read_ranks(run, "test")) for (at, _, _), run in runs.items() if at == domain)
        for teacher, artifact in labels.get(domain, {}).items():
            ranks = teacher_ranks(artifact, "test")
            own = metrics(ranks, evaluate.cutoffs)
            rows.append([domain, f"{teacher} (teacher)", "", *_cells(own), *_cost(artifact)])
            if 0 < len(ranks) < users:
                partial.append(
                    f"{teacher} in {domain}: measured on the {len(ranks):,} of {users:,} users it has labels of."
                )
        for student in dict.fromkeys(student for at, student, _ in runs if at == domain):
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
    for line in partial:
        console.print(line)


def _student_rows(runs: Runs, domain: str, student: str, evaluate: EvaluateSettings) -> Iterator[Row]:
    ranks = {}
    for distilled in (False, True):
        run = runs.get((domain, student, distilled))
        if run is None:
            continue
        ranks[distilled] = read_ranks(run, "test")
        values = metrics(ranks[distilled], evaluate.cutoffs)
        yield [domain, student, "yes" if distilled else "no", *_cells(values), *_cost(run)]
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


def _cost(artifact: Artifact) -> list[str]:
    facts = artifact.facts
    return [number(facts["parameters"], ","), number(facts["ms_per_1000_users"], ".1f")]
