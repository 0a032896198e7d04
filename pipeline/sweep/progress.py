"""Progress of a sweep: a line for each run that is done, and a bar below them on a terminal."""

import time
from collections.abc import Sequence
from statistics import mean
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ckd.pipeline.mishaps import explained
from ckd.pipeline.progress import console
from ckd.pipeline.report.leaderboard import METRIC
from ckd.pipeline.report.run_settings import differing, settings_of, short_names, shown
from ckd.pipeline.sweep.runs import Job
from ckd.storage.runs import domains_of, read_metrics

_MINUTE, _HOUR = 60, 3600


class Tally:
    """Counts runs and prints what became of them. A context, in which the bar is shown.

    Attributes:
        failed: what failed, by the name of the run.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.failed: dict[str, str] = {}
        self._names = _names(jobs)
        self._done, self._total, self._started = 0, len(jobs), time.perf_counter()
        columns = (
            TextColumn("runs"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=self._total)

    def finish(self, job: Job, seconds: float) -> None:
        """Count a run that is in the store now."""
        run = job.plan.store.find(job.address)
        if run is None:
            self.fail(job, f"the process that trained it put it into another store than {job.plan.store.root}")
            return
        value = mean(read_metrics(run, domain)["valid"][METRIC] for domain in domains_of(run))
        facts = run.facts
        epochs = f"epoch {facts['best_epoch']} of {facts['epochs']}"
        self._say(f"{self._names[job.address.key]}: valid {METRIC} {value:.4f}, {epochs}, {seconds:.1f} s")

    def fail(self, job: Job, why: str | OSError | Exception) -> None:
        """Count a run that could not be trained."""
        text = (explained(why) if isinstance(why, OSError) else None) or str(why)
        name = self._names[job.address.key]
        self.failed[name] = text
        self._say(f"{name}: failed")

    def _say(self, text: str) -> None:
        self._done += 1
        left = (time.perf_counter() - self._started) / self._done * (self._total - self._done)
        soon = f", about {_duration(left)} left" if self._done < self._total else ""
        console.print(f"{text}  [{self._done} of {self._total}{soon}]", markup=False, soft_wrap=True)
        self._bar.update(self._task, advance=1, description=soon.removeprefix(", "))

    def __enter__(self) -> "Tally":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def _names(jobs: Sequence[Job]) -> dict[str, str]:
    """Return key of a run to its name: what it is, its seed, and the settings in which runs of the sweep differ."""
    settings = {job.address.key: settings_of(job.address.inputs) for job in jobs}
    names = differing([(", ".join(job.run.domains), settings[job.address.key]) for job in jobs])
    short = short_names(names)
    found = {}
    for job in jobs:
        own = settings[job.address.key]
        values = [f"{short[name]} {shown(own[name])}" for name in names if name in own]
        found[job.address.key] = ", ".join([str(job.run), *values, f"seed {job.address.inputs['seed']}"])
    return found


def _duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"
