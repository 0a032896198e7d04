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
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ckd.pipeline.mishaps import heed_interrupt

_WIDE = 200
"""Columns of a table in a file or a pipe, where no window cuts it."""

console = Console(highlight=False)
"""Where reports go."""
if not console.is_terminal:
    console = Console(highlight=False, width=_WIDE)
errors = Console(stderr=True, highlight=False, soft_wrap=True)
"""Where progress and remarks go of a command whose standard output is data."""


class _Rate(ProgressColumn):
    """Steps per second and, where bytes are counted, MB per second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        elapsed = task.elapsed or 0.0
        done = task.completed - task.fields["reused"]
        if not elapsed or not done:
            return Text("")
        text = f"{done / elapsed:,.0f} {self._unit}/s"
        written = task.fields.get("written", 0)
        return Text(f"{text}  {written / elapsed / 1e6:.1f} MB/s" if written else text)


class Bar:
    """Moves a progress bar and counts: steps done now, bytes written, steps that were done before."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task
        self.done = self.written = self.reused = 0

    def advance(self, steps: int, written: int = 0) -> None:
        """Count steps done now, and the bytes that came of them."""
        heed_interrupt()
        self.done += steps
        self.written += written
        self._progress.update(self._task, advance=steps, written=self.written)

    def reuse(self, steps: int) -> None:
        """Count steps that an interrupted run had done: they move the bar and are no speed."""
        self.reused += steps
        self._progress.update(self._task, advance=steps, reused=self.reused)


@contextmanager
def bar(title: str, total: int, unit: str, on: Console = console) -> Iterator["Bar"]:
    """Show a progress bar on a terminal, and one line when it is done; yield what moves it."""
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
    with Progress(*columns, console=on, transient=True, disable=not on.is_terminal) as progress:
        moved = Bar(progress, progress.add_task(title, total=total, written=0, reused=0))
        yield moved
    seconds = time.perf_counter() - started
    speed = f", {moved.written / seconds / 1e6:.1f} MB/s" if moved.written else ""
    kept = f"; {moved.reused:,} from an interrupted run" if moved.reused else ""
    on.print(f"{title}: {moved.done:,} {unit} in {seconds:.1f} s ({moved.done / seconds:,.0f} {unit}/s{speed}){kept}")


def epoch_lines(title: str) -> Callable[[dict[str, float]], None]:
    """Return what prints one line per epoch."""

    def show(row: dict[str, float]) -> None:
        heed_interrupt()
        parts = [f"{name} {value:.4f}" for name, value in row.items() if name not in ("epoch", "seconds", "loss")]
        loss = [f"loss {row['loss']:.4f}"] if row["loss"] == row["loss"] else []
        console.print(f"  {title}  epoch {int(row['epoch'])}  {'  '.join(loss + parts)}  {row['seconds']:.1f} s")

    return show


def note_lines(title: str) -> Callable[[str], None]:
    """Return what prints one line per phrase about a training."""

    def show(text: str) -> None:
        console.print(f"  {title}  {text}")

    return show
