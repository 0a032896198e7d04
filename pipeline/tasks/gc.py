"""What nothing refers to, listed and removed."""

from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table

from ckd.pipeline.config.load import load_configuration
from ckd.pipeline.config.models import Configuration
from ckd.pipeline.garbage import Garbage, find_garbage
from ckd.pipeline.named import refuse_names
from ckd.pipeline.plan import Plan
from ckd.pipeline.progress import console
from ckd.pipeline.report.layout import LAYOUT
from ckd.storage import files
from ckd.storage.errors import Busy, UserError
from ckd.storage.store import Store


def collect(configuration: Configuration, also: Sequence[Path], runs: bool, delete: bool) -> None:
    """Print what may go, and remove it if asked.

    Args:
        configuration: what it asks for stays.
        also: files of further configurations of the same store, which count as well.
        runs: whether runs that no configuration asks for may go.
        delete: whether to remove anything.

    Raises:
        UserError: a configuration is wrong, or has another store.
        Busy: another process is writing into the store; nothing was removed.
    """
    plans = [_plan_of(configuration), *(_plan(path, configuration) for path in also)]
    store = plans[0].store
    garbage, notes = find_garbage(plans, runs)
    for note in notes:
        click.echo(note)
    _print(garbage)
    if not delete:
        if garbage:
            click.echo("nothing was removed; --delete removes it")
        return
    writer = store.writing()
    if writer is not None:
        raise Busy(f"{store.root} is being written by {writer}; wait for it to end or stop it; nothing was removed")
    for each in garbage:
        _remove(store, each)
    for lock in store.idle_locks():
        store.discard_lock(lock)
    if garbage:
        click.echo(f"removed {_summed(garbage)}")


def _plan(path: Path, configuration: Configuration) -> Plan:
    other = load_configuration(path)
    if other.store != configuration.store:
        raise UserError(f"--also {path}: its store is {other.store}, not {configuration.store}; name one of this store")
    return _plan_of(other, f"--also {path}: ")


def _plan_of(configuration: Configuration, where: str = "") -> Plan:
    refuse_names(configuration, "gc", where)
    return Plan(configuration)


def _remove(store: Store, garbage: Garbage) -> None:
    if garbage.folder is None:
        store.discard_lock(garbage.path)
    elif garbage.path.is_file():
        with store.locked(garbage.folder):
            files.remove_file(garbage.path)
    else:
        store.remove(garbage.path)


def _print(garbage: Sequence[Garbage]) -> None:
    if not garbage:
        click.echo("nothing to remove: a configuration or a run refers to all that is in the store")
        return
    table = Table(**LAYOUT)
    table.add_column("what", overflow="fold")
    table.add_column("why", overflow="fold")
    table.add_column("MB", justify="right", no_wrap=True)
    for each in garbage:
        table.add_row(each.what, each.why, f"{each.bytes / 1e6:,.1f}")
    console.print(table)
    click.echo(_summed(garbage))


def _summed(garbage: Sequence[Garbage]) -> str:
    things = "thing" if len(garbage) == 1 else "things"
    return f"{len(garbage):,} {things}, {sum(each.bytes for each in garbage) / 1e6:,.1f} MB"
