"""The leaderboard of the store."""

from collections.abc import Sequence

import click

from ckd.pipeline.config.models import Configuration
from ckd.pipeline.config.problems import unnamed
from ckd.pipeline.contents import left_out
from ckd.pipeline.named import plan_of
from ckd.pipeline.plan import Plan
from ckd.pipeline.progress import console
from ckd.pipeline.report.leaderboard import print_leaderboard
from ckd.stages.evaluate.metrics import STORED_CUTOFFS, metric_names
from ckd.storage.artifact import Artifact
from ckd.storage.errors import UserError
from ckd.storage.runs import corpora_of, domains_of


def list_runs(
    configuration: Configuration,
    domains: Sequence[str],
    students: Sequence[str],
    metric: str,
    every: bool,
    limit: int | None,
) -> None:
    """Print the runs of the store as a leaderboard.

    Args:
        configuration: whose domains, as they are now, and whose students are listed.
        domains, students: only these; none for all.
        metric: to compare by.
        every: also runs that the configuration does not mean.
        limit: rows of each domain.

    Raises:
        UserError: there is no such metric, domain or student.
    """
    known = metric_names(STORED_CUTOFFS)
    if metric not in known:
        raise UserError(f"--metric: {unnamed('metric', metric, known)}")
    plan = plan_of(configuration)
    runs, damaged = plan.store.found("runs")
    for path in damaged:
        click.echo(left_out("runs", path), err=True)
    listed = runs if every else _meant(plan, runs)
    for option, chosen in (("domain", domains), ("student", students)):
        found = {name for run in listed for name in _names(run, option)}
        names = sorted(found.union(getattr(configuration, f"{option}s")))
        for name in chosen:
            if name not in names:
                raise UserError(f"--{option}: {unnamed(option, name, names)}")
        listed = [run for run in listed if not chosen or set(chosen).intersection(_names(run, option))]
    if not listed:
        others = len(runs)
        more = f"; --all lists {others} others" if others and not every else ""
        console.print(f"no such run is in {plan.store.root} yet{more}; `ckd distill` trains students")
        return
    print_leaderboard(plan.store, listed, metric, limit, domains)


def _names(run: Artifact, option: str) -> list[str]:
    return domains_of(run) if option == "domain" else [str(run.inputs["student"])]


def _meant(plan: Plan, runs: Sequence[Artifact]) -> list[Artifact]:
    """Return the runs of the configuration's students, on its domains as their raw files are now."""
    corpora = {}
    for domain in plan.configuration.domains:
        try:
            corpora[domain] = plan.corpus(domain).key
        except UserError as error:
            click.echo(f"left out domain {domain}: {error}; --all lists its runs", err=True)
    return [
        run
        for run in runs
        if run.inputs["student"] in plan.configuration.students
        and all(corpora.get(domain) == key for domain, key in corpora_of(run).items())
    ]
