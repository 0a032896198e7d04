"""Trains the runs of a sweep that are not in the store, in parallel, and says what became of each."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ckd.pipeline.choice import EVERYTHING, Choice
from ckd.pipeline.commands import Request
from ckd.pipeline.progress import console
from ckd.pipeline.report.leaderboard import print_leaderboard
from ckd.pipeline.sweep.plan import SharingPlan
from ckd.pipeline.sweep.points import planned_points
from ckd.pipeline.sweep.progress import Tally
from ckd.pipeline.sweep.runs import Job, labels_of, runs_of
from ckd.storage.errors import Busy, UserError
from ckd.storage.trust import Signature

if TYPE_CHECKING:
    from distributed import Client, Future

    from ckd.pipeline.sweep.worker import Outcome

_PAUSE = 1.0
"""Seconds between two looks at runs that another process trains."""

Signatures = dict[Path, Signature]


def sweep(
    request: Request,
    grids: Sequence[str],
    seeds: int | None,
    jobs: int | None,
    threads: int | None,
    choice: Choice = EVERYTHING,
) -> None:
    """Train the students of every point for every seed and print them as a leaderboard.

    Args:
        request: the configuration that the points vary.
        grids: the texts of ``--grid``.
        seeds: how many, from the configuration's on; None for that one alone.
        jobs: processes; None for one per GPU, or for as many as the machine can run where there is none.
        threads: of each process; None for one.
        choice: the students that are meant.

    Raises:
        UserError: something in the points is wrong, labels are missing or damaged, or runs failed; a line for each.
    """
    plans = planned_points(request, grids, seeds, choice)
    cluster = plans[0].configuration.cluster
    if cluster.scheduler is not None and jobs is not None:
        raise UserError(f"--jobs: {cluster.scheduler} has its own workers; leave --jobs out, or set cluster=local")
    wanted = {job.address.key: job for plan in plans for job in runs_of(plan, choice)}
    todo = [job for job in wanted.values() if job.plan.store.find(job.address) is None]
    failed: dict[str, str] = {}
    if todo:
        signatures = _verified(todo)
        _prepare(todo)
        failed = _train(todo, len(wanted), signatures, jobs, threads or 1)
    else:
        console.print(f"all {len(wanted)} runs are in the store")
    found = [run for job in wanted.values() if (run := job.plan.store.find(job.address)) is not None]
    if found:
        print_leaderboard(plans[0].store, found)
    if failed:
        raise UserError("\n".join(f"{name}: {text}" for name, text in failed.items()))


def _verified(jobs: Sequence[Job]) -> Signatures:
    """Compare the labels that runs learn from with their digests, once for all of them.

    Raises:
        DamagedArtifact: before anything is trained.
    """
    labels = {
        found.path: found
        for job in jobs
        for by_teacher in labels_of(job.plan, job.run).values()
        for found in by_teacher.values()
    }
    return {path: known for artifact in labels.values() for path, known in artifact.verify().items()}


def _prepare(jobs: Sequence[Job]) -> None:
    missing: dict[str, tuple[SharingPlan, str]] = {}
    for job in jobs:
        for domain in job.run.domains:
            if job.plan.store.find(address := job.plan.corpus(domain)) is None:
                missing.setdefault(address.key, (job.plan, domain))
    if missing:
        from ckd.pipeline.tasks.inputs import prepare  # torch takes seconds to import

        for plan, domain in missing.values():
            prepare(plan, domain)


def _train(
    jobs: Sequence[Job], wanted: int, signatures: Signatures, processes: int | None, threads: int
) -> dict[str, str]:
    """Train runs; return the failed ones with what failed."""
    from ckd.pipeline.cluster import workers  # distributed takes a second to import
    from ckd.pipeline.sweep.known import known

    settings = jobs[0].plan.configuration.cluster
    if settings.scheduler is None:
        devices = {job.plan.configuration.device for job in jobs}
        processes = processes or min(suitable_processes(device, threads) for device in devices)
    processes = min(processes or len(jobs), len(jobs))
    where = settings.scheduler or f"{processes} process{'es' if processes > 1 else ''}"
    already = f", {wanted - len(jobs)} more are in the store" if wanted > len(jobs) else ""
    console.print(f"{len(jobs)} run{'s' if len(jobs) > 1 else ''} to train on {where}{already}")
    with Tally(jobs) as tally, workers(settings, processes, threads, partial(_tidy, jobs)) as client:
        # A node of the graph, not scattered data: what a killed process held of those is gone for good.
        trusted = client.submit(known, signatures, pure=False)
        waiting, told = list(jobs), False
        while waiting := _round(client, waiting, trusted, threads, tally):
            if not told:
                console.print(f"waiting for {len(waiting)} of the runs, which another process trains")
                told = True
            time.sleep(_PAUSE)
    _tidy(jobs)
    return tally.failed


def suitable_processes(device: str, threads: int) -> int:
    """Return how many processes train at once by default: one per GPU, else as many as have ``threads`` cores each."""
    from ckd.pipeline.cluster import cores

    if device != "cpu":
        from ckd.pipeline.device import gpus  # torch takes seconds to import

        if there := gpus(device):
            return there
    return max(cores() // threads, 1)


def _round(
    client: "Client", jobs: Sequence[Job], trusted: "Future[Mapping[Path, Signature]]", threads: int, tally: Tally
) -> list[Job]:
    """Train every run that nobody else trains; return the others."""
    from distributed import as_completed

    from ckd.pipeline.sweep.worker import train

    waiting, busy = deque(jobs), []
    under_way: dict[Future[Outcome], Job] = {}
    done = as_completed()

    def hand_out() -> None:
        # One run per worker and no more: what waits for a worker shares its fate, and loses its place in the order.
        workers = max(len(client.scheduler_info(n_workers=-1)["workers"]), 1)
        while waiting and len(under_way) < workers:
            future = client.submit(train, waiting[0], trusted, threads, pure=False)
            under_way[future] = waiting.popleft()
            done.add(future)

    hand_out()
    for future in done:
        job = under_way.pop(future)
        hand_out()
        try:
            outcome = future.result()
        except Exception as error:  # whatever a run fails of, it stops no other
            tally.fail(job, _crash(error))
            continue
        if outcome.busy is not None:
            busy.append(job)
        elif outcome.error is not None:
            tally.fail(job, outcome.error)
        else:
            tally.finish(job, outcome.seconds)
    return busy


def _crash(error: Exception) -> str:
    """Return what to say of a run that ended by what is no mistake of the user, or whose process died twice."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return "its process was killed, twice (by the kernel, if memory ran out); use fewer --jobs, then run it again"
    first, _, _ = str(error).strip().partition("\n")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _tidy(jobs: Sequence[Job]) -> None:
    """Remove what killed processes left of their runs."""
    for job in jobs:
        if job.plan.store.peek(job.address) is not None:
            # Another process may have begun to train it.
            with suppress(Busy), job.plan.store.draft(job.address):
                pass
