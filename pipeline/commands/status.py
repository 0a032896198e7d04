"""`ckd status`: what is there and what is still to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckd.pipeline.commands import configured

if TYPE_CHECKING:
    from ckd.pipeline.config.models import Configuration


@click.command(name="status")
@click.option(
    "--why",
    "closely",
    is_flag=True,
    help="Also say of each step to compute what differs from the nearest one in the store: stored -> wanted.",
)
@configured
def command(configuration: Configuration, closely: bool) -> None:
    """Show for each step whether it is reused, resumed or computed, and why."""
    from rich.table import Table

    from ckd.pipeline.named import plan_of
    from ckd.pipeline.progress import console
    from ckd.pipeline.reasons import why
    from ckd.pipeline.report.layout import LAYOUT, NOTHING
    from ckd.pipeline.steps import COMPUTE, MISSING, steps

    table = Table(**LAYOUT)
    for name in ("command", "makes", "of", "state", "why"):
        table.add_column(name, no_wrap=name != "why", overflow="fold")
    plan = plan_of(configuration)
    found = list(steps(plan))
    for step in found:
        command = NOTHING if step.state == MISSING else f"ckd {step.command}"
        table.add_row(command, step.what, step.subject, step.state, step.why)
    console.print(table)
    for step in found if closely else ():
        if step.state == COMPUTE:
            lines = [step.why] if step.address is None else why(plan, step.product, step.address)
            click.echo("\n".join([f"\n{step.what} of {step.subject}", *(f"  {line}" for line in lines)]))
