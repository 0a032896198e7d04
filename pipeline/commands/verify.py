"""`ckd verify`: whether the store still holds what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckd.pipeline.commands import configured
from ckd.pipeline.sample import SampleParameter

if TYPE_CHECKING:
    from ckd.pipeline.config.models import Configuration
    from ckd.pipeline.sample import Sample


@click.command(name="verify")
@click.option(
    "--repair",
    is_flag=True,
    help="Mend what is damaged: from spare copies, or by making just what is damaged again.",
)
@click.option(
    "--recompute",
    "sample",
    type=SampleParameter(),
    metavar="SAMPLE",
    help="Also ask the teachers again for a sample of the users (0.5%, 0.005 or 20) and compare; writes nothing.",
)
@configured
def command(configuration: Configuration, repair: bool, sample: Sample | None) -> int:
    """Check the manifest and every byte of every artifact of the store.

    All kinds are checked, whatever the configuration, and each damaged file is named. The exit code is 0 if all is
    sound or was mended, 1 if something is damaged or labels are no longer what their teacher says, 2 for a mistake.

    --repair puts a manifest back from its spare copy and makes the damaged shards of the configuration's labels again,
    and its corpora, text and item vectors; what is sound is not touched, and what was made again must have the very
    bytes that were recorded. Damaged teachers and students are taken out of use, for `ckd pretrain` and `ckd distill`
    to train again. What the configuration does not name is left as it is. Interrupted, run it again.

    --recompute compares bit for bit where the labels were computed with this version of torch on a processor like
    this one; else stored numbers may be off by two steps of their precision (2^-9 of them, 2^-6 in bfloat16), and one
    position in ten may have other items or ranks.
    """
    from ckd.pipeline.tasks.verify import verify

    return verify(configuration, repair, sample)
