"""`ckd gc`: what nothing refers to any more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ckd.pipeline.commands import configured

if TYPE_CHECKING:
    from ckd.pipeline.config.models import Configuration


@click.command(name="gc")
@click.option("--delete", is_flag=True, help="Remove what is listed.")
@click.option("--runs", is_flag=True, help="Also runs that no configuration asks for, and what only they refer to.")
@click.option(
    "--also",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A further configuration of the same store, whose artifacts stay too; may be given several times.",
)
@configured
def command(configuration: Configuration, delete: bool, runs: bool, also: tuple[Path, ...]) -> None:
    """List what is in the store and neither a configuration nor a run refers to.

    Without --delete nothing is changed. What stays: all that the configuration asks for as its raw files and teachers
    are now, every run, and what a run was trained from, down to corpora, text vectors and teachers. Where an address
    cannot be known, because raw files are gone or a teacher is not trained yet, all that could be meant stays, and that
    is said. Interrupted runs stay if the configuration would go on with them.
    """
    from ckd.pipeline.tasks.gc import collect

    collect(configuration, also, runs, delete)
