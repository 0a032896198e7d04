"""`ckd pretrain`: teachers from source domains, adapted to each target domain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ckd.pipeline.commands import configured

if TYPE_CHECKING:
    from ckd.pipeline.config.models import Configuration


@click.command(name="pretrain")
@click.option(
    "--export",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Also copy each frozen teacher to DIR/<teacher>/pretrained and DIR/<teacher>/<domain>.",
)
@click.option("--half", is_flag=True, help="Round the exported weights to float16: half the size.")
@configured
def command(configuration: Configuration, export: Path | None, half: bool) -> None:
    """Train or adapt the teachers, once.

    A teacher with `pretrain` is trained on the source domains; a teacher with `adapt` is then adapted to each
    domain on its training split, and with `adapt.folds` once more without the users of each fold. What is in the
    store already is not trained again.
    """
    from ckd.pipeline.tasks.pretrain import pretrain

    pretrain(configuration, export, half)
