"""`ckd runs`: the trained students of the store, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckd.pipeline.commands import configured

if TYPE_CHECKING:
    from ckd.pipeline.config.models import Configuration


@click.command(name="runs")
@click.option("--domain", "domains", multiple=True, metavar="NAME", help="Only of this domain; may be repeated.")
@click.option("--student", "students", multiple=True, metavar="NAME", help="Only of this student; may be repeated.")
@click.option("--metric", default="ndcg@10", show_default=True, metavar="NAME", help="Metric to compare by.")
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="Also of students, domains and corpora that the configuration does not name (any more).",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Rows of each domain.  [default: all]")
@configured
def command(
    configuration: Configuration,
    domains: tuple[str, ...],
    students: tuple[str, ...],
    metric: str,
    every: bool,
    limit: int | None,
) -> None:
    """List the trained students, the best on validation first.

    Runs that differ in nothing but the seed are one row, with mean and standard deviation; of the settings those are
    shown in which the listed runs differ. The order is that of the metric on validation: it alone may choose settings.
    Test is shown beside it and orders nothing.

    `ckd sql` answers any other question about runs: see its views runs and metrics.
    """
    from ckd.pipeline.tasks.runs import list_runs

    list_runs(configuration, domains, students, metric, every, limit)
