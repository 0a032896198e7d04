"""`ckd du`: what takes the room in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckd.pipeline.commands import configured

if TYPE_CHECKING:
    from ckd.pipeline.config.models import Configuration


@click.command(name="du")
@configured
def command(configuration: Configuration) -> None:
    """Show what takes the room in the store, by kind, and of labels by teacher and domain.

    Everything in the store counts, whatever the configuration. Manifests are read, and of labels the ends of the files.
    """
    from ckd.pipeline.report.room import room_table
    from ckd.storage.store import Store

    room_table(Store(configuration.store))
