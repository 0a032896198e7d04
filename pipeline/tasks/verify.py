"""Whether the store still holds what was written, and what the teachers still say."""

import click

from ckd.pipeline.config.models import Configuration
from ckd.pipeline.named import refuse_names
from ckd.pipeline.plan import Plan
from ckd.pipeline.progress import bar
from ckd.pipeline.sample import Sample
from ckd.storage.errors import UserError
from ckd.storage.store import Store
from ckd.storage.upkeep import Condition, bytes_to_read, checked, conditions, leftovers

DAMAGED = 1
"""Exit code where something is damaged, or labels are no longer what the teachers say."""


def verify(configuration: Configuration, repair: bool, sample: Sample | None) -> int:
    """Check every artifact of the store; mend what is damaged and compare labels with their teachers, if asked.

    Returns:
        0, or :data:`DAMAGED`.

    Raises:
        UserError: there is no store.
        Busy: another process is writing what is to be mended.
    """
    if repair or sample is not None:
        refuse_names(configuration, "verify --repair" if repair else "verify --recompute")
    plan = Plan(configuration)
    if not plan.store.root.is_dir():
        raise UserError(f"there is no store at {plan.store.root}; correct store, or make one with `ckd precompute`")
    found = _checked(plan.store)
    code = 0
    if repair:
        from ckd.pipeline.tasks.mend import mend  # torch takes seconds to import

        for outcome in mend(plan, found):
            click.echo(f"{outcome.path}: {outcome.what}")
            code = code if outcome.mended else DAMAGED
    elif not all(condition.sound for condition in found) or plan.store.reopened():
        code = DAMAGED
    if sample is not None:
        from ckd.pipeline.tasks.recompute import recompute

        code = code if recompute(plan, sample) else DAMAGED
    return code


def _checked(store: Store) -> list[Condition]:
    there = conditions(store)
    files, size = bytes_to_read(there)
    with bar(f"check of {len(there):,} artifacts, {size / 1e6:,.1f} MB", files, "files") as progress:
        found = checked(there, progress.advance)
    bad = [condition for condition in found if not condition.sound]
    for condition in bad:
        for path, what in condition.lines():
            click.echo(f"{path}: {what}")
    for left in leftovers(store):
        if left.writer is not None:
            click.echo(f"{left.folder}: not checked, {left.writer} is writing it")
        for name, what in left.files.items():
            click.echo(f"{left.folder / name}: {what}; what was interrupted here will be made again, no harm is done")
    begun = store.reopened()
    for artifact in begun:
        click.echo(f"{artifact.path}: its repair was begun and not finished; `ckd verify --repair` goes on with it")
    if bad:
        click.echo(f"{len(bad):,} of {len(found):,} artifacts are damaged")
    elif not begun:
        click.echo("all are what was written")
    return found
