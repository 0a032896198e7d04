"""The results as Markdown."""

from collections.abc import Sequence

import numpy as np
from runs import Found, mean_over_seeds, teacher_values, values
from variants import NONE, Variant

from ckd.pipeline.plan import Plan
from ckd.stages.evaluate.bootstrap import Gain, relative_gain
from ckd.storage.runs import read_metrics

METRICS = ("recall@10", "ndcg@10", "recall@50", "ndcg@50")
RESULTS = ("seeds", "valid N@10", "R@10", "N@10", "R@50", "N@50", "N@10 against none, 95 %")
"""The heads of :func:`cells_of`."""


def print_students(plan: Plan, found: Found, variants: Sequence[Variant]) -> None:
    """Print teachers and students of each domain, with the gain of each variant over no distillation."""
    print(f"| domain | model | learned from | {' | '.join(RESULTS)} |")
    print("|---|---|---|---:|---:|" + "---:|" * len(METRICS) + "---:|")
    for domain in plan.configuration.domains:
        for teacher in plan.taught_by(domain):
            own = teacher_values(plan, teacher, domain)
            if own is not None:
                cells = " | ".join(f"{own[name].mean():.4f}" for name in METRICS)
                print(f"| {domain} | {teacher} (teacher) | | | | {cells} | |")
        for student in dict.fromkeys(student for at, student, _ in found if at == domain):
            for variant in variants:
                if (domain, student, variant.name) in found:
                    print(_row(found, domain, student, variant))


def _row(found: Found, domain: str, student: str, variant: Variant) -> str:
    return " | ".join([f"| {domain}", student, variant.name, *cells_of(found, domain, student, variant)]) + " |"


def cells_of(found: Found, domain: str, student: str, variant: Variant) -> list[str]:
    """Return what the runs of one variant came to: how many, on validation, on test, and the gain over none."""
    runs = found[domain, student, variant.name]
    each = [values(run, domain) for run in runs]
    cells = [spread([one[name].mean() for one in each]) for name in METRICS]
    valid = spread([read_metrics(run, domain)["valid"]["ndcg@10"] for run in runs])
    gain = gain_over_none(found, domain, student, variant)
    shown = "" if gain is None else shown_gain(gain)
    return [str(len(runs)), valid, *cells, shown]


def gain_over_none(found: Found, domain: str, student: str, variant: Variant) -> Gain | None:
    """Return the gain in NDCG@10 over the same student without distillation, or None for that student itself."""
    plain = found.get((domain, student, NONE.name))
    if plain is None or variant == NONE:
        return None
    before, after = (mean_over_seeds(runs, domain)["ndcg@10"] for runs in (plain, found[domain, student, variant.name]))
    return relative_gain(before, after)


def shown_gain(gain: Gain) -> str:
    """Return a gain and its interval, in per cent."""
    return f"{gain.percent:+.1f} % ({gain.low:+.1f} .. {gain.high:+.1f})"


def spread(numbers: Sequence[float]) -> str:
    """Return the mean, and with several seeds the standard deviation."""
    if len(numbers) < 2:
        return f"{np.mean(numbers):.4f}"
    return f"{np.mean(numbers):.4f} ± {np.std(numbers, ddof=1):.4f}"
