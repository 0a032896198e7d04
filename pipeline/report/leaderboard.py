"""Runs side by side: the seeds of the same settings together, the best on validation first."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from ckd.pipeline.progress import console
from ckd.pipeline.report.layout import NOTHING, Row, number, print_numbers
from ckd.pipeline.report.run_settings import differing, in_domain, settings_of, short_names, shown
from ckd.storage.artifact import Artifact
from ckd.storage.keys import canonical_json
from ckd.storage.runs import domains_of, read_metrics
from ckd.storage.store import Store

METRIC = "ndcg@10"
"""What runs are compared by unless told otherwise; also what training watches."""

_KEYS = ("domain", "student", "learned from")


@dataclass(frozen=True)
class Standing:
    """Runs that differ in nothing but the seed.

    Attributes:
        domain, student: names.
        teachers: it learned from; none without distillation.
        settings: all that determined the runs beside these and the seed.
        valid, test: the metric, a value per seed.
        parameters: trainable numbers.
    """

    domain: str
    student: str
    teachers: tuple[str, ...]
    settings: Mapping[str, Any]
    valid: tuple[float, ...]
    test: tuple[float, ...]
    parameters: int


def print_leaderboard(
    store: Store,
    runs: Sequence[Artifact],
    metric: str = METRIC,
    limit: int | None = None,
    domains: Collection[str] = (),
) -> None:
    """Print the standings of runs.

    Args:
        store: that they are in; it tells what their corpora and labels were made with.
        runs: to list.
        metric: to compare by.
        limit: rows of each domain; None for all.
        domains: only these, also of runs that have others beside them; none for all.
    """
    found = [one for one in standings(runs, metric, store) if not domains or one.domain in domains]
    names = differing([(one.domain, one.settings) for one in found])
    headings = short_names(names)
    rows: list[Row] = []
    left = 0
    for domain in dict.fromkeys(one.domain for one in found):
        own = [one for one in found if one.domain == domain]
        left += len(own) - len(own[:limit])
        rows += [_cells(one, names) for one in own[:limit]]
        rows.append(None)
    keys = [*_KEYS, *(headings[name] for name in names)]
    print_numbers(console, keys, ["seeds", f"valid {metric}", f"test {metric}", "parameters"], rows[:-1])
    console.print(
        f"Ordered by the mean of {metric} on validation, which alone chooses; ±: standard deviation over seeds. "
        "Test is shown for the record: whoever chooses by it measures nothing any more."
    )
    if left:
        console.print(f"--limit {limit} leaves out {left} of {len(found)} rows.")


def standings(runs: Sequence[Artifact], metric: str, store: Store) -> list[Standing]:
    """Return the standings of runs: domains by name, within each the best mean on validation first."""
    groups: dict[str, list[Artifact]] = {}
    for run in runs:
        same = {name: value for name, value in run.inputs.items() if name != "seed"}
        groups.setdefault(canonical_json(same), []).append(run)
    known = {made.key: made.inputs for kind in ("corpus", "labels") for made in store.all(kind)} if groups else {}
    found = [_standing(group, domain, metric, known) for group in groups.values() for domain in domains_of(group[0])]
    return sorted(found, key=lambda one: (one.domain, -mean(one.valid), one.parameters, canonical_json(one.settings)))


def _standing(runs: Sequence[Artifact], domain: str, metric: str, known: Mapping[str, Mapping[str, Any]]) -> Standing:
    inputs = in_domain(runs[0].inputs, domain)
    measured = [read_metrics(run, domain) for run in runs]
    valid, test = (tuple(of_run[split][metric] for of_run in measured) for split in ("valid", "test"))
    return Standing(
        domain,
        str(inputs["student"]),
        tuple(sorted(inputs["labels"])),
        settings_of(inputs, known),
        valid,
        test,
        int(runs[0].facts["parameters"]),
    )


def _cells(one: Standing, names: Sequence[str]) -> list[str]:
    values = [shown(one.settings[name]) if name in one.settings else NOTHING for name in names]
    keys = [one.domain, one.student, ", ".join(one.teachers) or NOTHING, *values]
    return [*keys, str(len(one.valid)), _spread(one.valid), _spread(one.test), f"{one.parameters:,}"]


def _spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation; of one value there is none."""
    if len(values) < 2 or any(map(math.isnan, values)):
        return number(mean(values), ".4f")
    return f"{mean(values):.4f} ±{stdev(values):.4f}"
