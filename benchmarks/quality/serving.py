"""What it costs to serve, and what quality that buys: teachers beside students, as a table and as a picture.

Time is that of the ten best items of 1,000 users in batches of 250 on the CPU, item vectors computed before; the models
take turns, and of several rounds the fastest counts.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from runs import Found, values
from variants import NONE, Variant

from ckd.pipeline.plan import Plan
from ckd.pipeline.report.teachers import teacher_ranks
from ckd.pipeline.tasks.inputs import prepare, text_of
from ckd.stages.evaluate.metrics import row_metrics
from ckd.stages.evaluate.serving import milliseconds_per_1000_users
from ckd.stages.precompute.serving import serving_facts
from ckd.stages.students.contract import by_name
from ckd.stages.students.trained import load_student
from ckd.stages.teachers import TEACHERS
from ckd.stages.teachers.contract import Opening, Teacher
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus, read_corpus
from ckd.storage.runs import WEIGHTS, domains_of

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

_MEGABYTE = 1e6
ROUNDS = 3


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

    @property
    def served(self) -> tuple[str, bool]:
        """What is run to serve it."""
        return self.name, self.kind == "teacher"


def served(plan: Plan, found: Found, domain: str, variant: Variant) -> list[Served]:
    """Return the teachers of a domain and each student without and with distillation, all timed now, in turn."""
    corpus = read_corpus(prepare(plan, domain))
    timed: list[tuple[Served, Callable[[], float]]] = []
    for teacher in plan.taught_by(domain):
        artifact = plan.store.find(plan.labels(teacher, domain))
        if artifact is not None:
            ndcg = row_metrics(teacher_ranks(artifact, "test"), (10,))["ndcg@10"].mean()
            size = sum(path.stat().st_size for path in plan.frozen(teacher, domain).values())
            model = Served(teacher, "teacher", artifact.facts["parameters"], size / _MEGABYTE, np.inf, ndcg)
            opened = open_teacher(plan, teacher, domain, corpus)
            timed.append((model, partial(_of_teacher, opened, corpus)))
    for (at, student, name), runs in found.items():
        if at == domain and name in (NONE.name, variant.name):
            kind = "plain" if name == NONE.name else "distilled"
            size = (runs[0].path / WEIGHTS).stat().st_size / _MEGABYTE
            ndcg = float(np.mean([values(run, domain)["ndcg@10"].mean() for run in runs]))
            model = Served(student, kind, runs[0].facts["parameters"], size, np.inf, ndcg)
            timed.append((model, partial(_of_student, plan, runs[0], domain)))
    best = [np.inf] * len(timed)
    for _ in range(ROUNDS):
        for place, (_, measure) in enumerate(timed):
            best[place] = min(best[place], measure())
    # A student is the same network with and without distillation: what differs between the two is noise.
    fastest: dict[tuple[str, bool], float] = {}
    for (model, _), time in zip(timed, best, strict=True):
        fastest[model.served] = min(time, fastest.get(model.served, np.inf))
    return [model._replace(milliseconds=fastest[model.served]) for model, _ in timed]


def _of_teacher(teacher: Teacher, corpus: Corpus) -> float:
    facts = serving_facts(teacher, corpus, torch.device("cpu"))
    return float(facts["ms_per_1000_users"]) / 1e3


def _of_student(plan: Plan, run: Artifact, domain: str) -> float:
    corpora = {name: read_corpus(prepare(plan, name)) for name in domains_of(run)}
    own = by_name(corpora)[domain]
    return milliseconds_per_1000_users(load_student(run, corpora).scorer(own), own.corpus) / 1e3


def open_teacher(plan: Plan, teacher: str, domain: str, corpus: Corpus) -> Teacher:
    """Open a teacher as it labels."""
    device = torch.device("cpu")
    frozen, way = plan.frozen(teacher, domain), plan.reads(teacher)
    text = None if way is None else text_of(plan, domain, way, corpus, device)
    settings = plan.configuration.teachers[teacher]
    opened: Teacher = TEACHERS.load(settings.kind).open_teacher(Opening(settings, frozen, corpus, text, device))
    return opened


def print_serving(plan: Plan, found: Found, variant: Variant, picture: Path) -> None:
    """Print the table of all domains and draw one panel for each."""
    print("| domain | model | | parameters | MB | ms per user | users/s | N@10 |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    domains = list(plan.configuration.domains)
    figure, panels = plt.subplots(1, len(domains), figsize=(6 * len(domains), 4.5), squeeze=False, layout="constrained")
    for domain, panel in zip(domains, panels[0], strict=True):
        models = served(plan, found, domain, variant)
        for model in models:
            cells = f"{model.parameters:,} | {model.megabytes:.1f} | {model.milliseconds:.3f}"
            rate = 1e3 / model.milliseconds
            print(f"| {domain} | {model.name} | {model.kind} | {cells} | {rate:,.0f} | {model.ndcg:.4f} |")
        draw(panel, domain, models)
    picture.parent.mkdir(parents=True, exist_ok=True)
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
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.margins(x=0.15)
    panel.set_xlabel("ms per user (CPU; size of a mark: MB of weights)")
    panel.set_ylabel("NDCG@10, test")
    panel.set_title(domain)
    panel.legend(fontsize=8)
