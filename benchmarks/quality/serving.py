"""What it costs to serve, and what quality that buys: teachers beside students, as a table and as a picture."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from runs import Found, values
from variants import NONE, Variant

from ckd.pipeline.plan import Plan
from ckd.pipeline.report.teachers import teacher_ranks
from ckd.stages.evaluate.metrics import row_metrics
from ckd.storage.runs import WEIGHTS

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_MEGABYTE = 1e6


class Served(NamedTuple):
    """One model in one domain."""

    name: str
    kind: str
    """teacher, plain or distilled."""
    parameters: int
    megabytes: float
    milliseconds: float
    """Of one user."""
    ndcg: float


def served(plan: Plan, found: Found, domain: str, variant: Variant) -> Iterator[Served]:
    """Yield the teachers of a domain, then each student without and with distillation."""
    for teacher in plan.taught_by(domain):
        artifact = plan.store.find(plan.labels(teacher, domain))
        if artifact is None:
            continue
        ndcg = row_metrics(teacher_ranks(artifact, "test"), (10,))["ndcg@10"].mean()
        size = sum(path.stat().st_size for path in plan.frozen(teacher, domain).values())
        facts = artifact.facts
        yield Served(teacher, "teacher", facts["parameters"], size / _MEGABYTE, facts["ms_per_1000_users"] / 1e3, ndcg)
    for (at, student, name), runs in found.items():
        if at == domain and name in (NONE.name, variant.name):
            yield Served(
                student,
                "plain" if name == NONE.name else "distilled",
                runs[0].facts["parameters"],
                (runs[0].path / WEIGHTS).stat().st_size / _MEGABYTE,
                min(run.facts["ms_per_1000_users"][domain] for run in runs) / 1e3,
                float(np.mean([values(run, domain)["ndcg@10"].mean() for run in runs])),
            )


def print_serving(plan: Plan, found: Found, variant: Variant, picture: Path) -> None:
    """Print the table of all domains and draw one panel for each."""
    print("| domain | model | | parameters | MB | ms per user | users/s | N@10 |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    domains = list(plan.configuration.domains)
    figure, panels = plt.subplots(1, len(domains), figsize=(6 * len(domains), 4.5), squeeze=False, layout="constrained")
    for domain, panel in zip(domains, panels[0], strict=True):
        models = list(served(plan, found, domain, variant))
        for model in models:
            cells = f"{model.parameters:,} | {model.megabytes:.1f} | {model.milliseconds:.3f}"
            rate = 1e3 / model.milliseconds
            print(f"| {domain} | {model.name} | {model.kind} | {cells} | {rate:,.0f} | {model.ndcg:.4f} |")
        draw(panel, domain, models)
    figure.savefig(picture, dpi=150)
    print(f"<!-- drawn: {picture} -->")


def draw(panel: plt.Axes, domain: str, models: list[Served]) -> None:
    """Draw quality over time per user; an arrow leads from each plain student to its distilled one."""
    styles = {"teacher": ("s", "tab:red"), "plain": ("o", "tab:gray"), "distilled": ("o", "tab:blue")}
    for kind, (marker, colour) in styles.items():
        some = [model for model in models if model.kind == kind]
        panel.scatter(
            [model.milliseconds for model in some],
            [model.ndcg for model in some],
            [20 + 15 * model.megabytes for model in some],
            marker=marker,
            color=colour,
            alpha=0.8,
            label={"plain": "student, plain", "distilled": "student, distilled"}.get(kind, kind),
        )
    plain = {model.name: model for model in models if model.kind == "plain"}
    for model in models:
        if model.kind == "distilled" and model.name in plain:
            before = plain[model.name]
            panel.annotate(
                "",
                (model.milliseconds, model.ndcg),
                (before.milliseconds, before.ndcg),
                arrowprops={"arrowstyle": "->", "color": "tab:blue", "alpha": 0.5},
            )
        if model.kind != "plain":
            panel.annotate(
                model.name, (model.milliseconds, model.ndcg), xytext=(6, 4), textcoords="offset points", fontsize=8
            )
    panel.set_xscale("log")
    panel.set_xlabel("ms per user (CPU; size of a mark: MB of weights)")
    panel.set_ylabel("NDCG@10, test")
    panel.set_title(domain)
    panel.legend(fontsize=8)
