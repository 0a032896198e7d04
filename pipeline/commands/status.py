"""`ckd status`: what is there and what is still to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckd.pipeline.commands import configured

if TYPE_CHECKING:
    from ckd.pipeline.config.models import Configuration


@click.command(name="status")
@configured
def command(configuration: Configuration) -> None:
    """Show for each step whether it is reused, resumed or computed, and why."""
    from rich.table import Table

    from ckd.pipeline.plan import Plan
    from ckd.pipeline.progress import console
    from ckd.pipeline.report.layout import LAYOUT
    from ckd.pipeline.steps import steps

    table = Table(**LAYOUT)
    for name in ("command", "makes", "of", "state", "why"):
        table.add_column(name, no_wrap=name != "why", overflow="fold")
    for step in steps(Plan(configuration)):
        table.add_row(f"ckd {step.command}", step.what, step.subject, step.state, step.why)
    console.print(table)
