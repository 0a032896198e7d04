"""Progress on the terminal: a bar where there is one, plain lines where output goes to a file."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_WIDE = 200
"""Columns of a table in a file or a pipe, where no window cuts it."""

console = Console(highlight=False)
"""Where reports go."""
if not console.is_terminal:
    console = Console(highlight=False, width=_WIDE)


class _Rate(ProgressColumn):
    """Steps per second and, where bytes are counted, MB per second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        elapsed = task.elapsed or 0.0
        if not elapsed or not task.completed:
            return Text("")
        text = f"{task.completed / elapsed:,.0f} {self._unit}/s"
        written = task.fields.get("written", 0)
        return Text(f"{text}  {written / elapsed / 1e6:.1f} MB/s" if written else text)


@contextmanager
def bar(title: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
    """Show a progress bar on a terminal, and one line when it is done; yield ``advance(steps, bytes=0)``."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        _Rate(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    started = time.perf_counter()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total, written=0)

        def advance(steps: int, written: int = 0) -> None:
            total_written = progress.tasks[task].fields["written"] + written
            progress.update(task, advance=steps, written=total_written)

        yield advance
        done, written = progress.tasks[task].completed, progress.tasks[task].fields["written"]
    seconds = time.perf_counter() - started
    speed = f", {written / seconds / 1e6:.1f} MB/s" if written else ""
    console.print(f"{title}: {done:,.0f} {unit} in {seconds:.1f} s ({done / seconds:,.0f} {unit}/s{speed})")


def epoch_lines(title: str) -> Callable[[dict[str, float]], None]:
    """Return what prints one line per epoch."""

    def show(row: dict[str, float]) -> None:
        parts = [f"{name} {value:.4f}" for name, value in row.items() if name not in ("epoch", "seconds", "loss")]
        loss = [f"loss {row['loss']:.4f}"] if row["loss"] == row["loss"] else []
        console.print(f"  {title}  epoch {int(row['epoch'])}  {'  '.join(loss + parts)}  {row['seconds']:.1f} s")

    return show
