"""`ckd precompute`: the teachers' soft labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckd.pipeline.commands import configured

if TYPE_CHECKING:
    from ckd.pipeline.config.models import Configuration


@click.command(name="precompute")
@configured
def command(configuration: Configuration) -> None:
    """Write the teachers' soft labels into the store.

    Every position of every sequence of every domain is labelled by every teacher, shard by shard. What is in the
    store already is kept; an interrupted run goes on with the missing shards.
    """
    from ckd.pipeline.tasks.precompute import precompute

    precompute(configuration)
