"""`ckd distill`: students from the cached labels. Never imports a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckd.pipeline.commands import configured
from ckd.pipeline.commands.explain import explained

if TYPE_CHECKING:
    from ckd.pipeline.config.models import Configuration


@click.command(name="distill")
@configured
@explained
def command(configuration: Configuration) -> None:
    """Train students from the soft labels.

    Unless told otherwise each student is trained twice, without distillation and with it, and the two are compared.
    What is in the store already is not trained again.

    With --explain nothing is trained: it shows what a student is taught at each position.
    """
    from ckd.pipeline.tasks.distill import distill

    distill(configuration)
