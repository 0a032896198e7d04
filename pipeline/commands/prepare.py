"""`ckd prepare`: corpora and item text vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckd.pipeline.commands import configured

if TYPE_CHECKING:
    from ckd.pipeline.config.models import Configuration


@click.command(name="prepare")
@configured
def command(configuration: Configuration) -> None:
    """Turn raw files into corpora and item text vectors.

    The other commands do this by themselves when it is needed.
    """
    from ckd.pipeline.tasks.inputs import prepare_all

    prepare_all(configuration)
