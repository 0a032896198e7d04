"""Processes that do the work of a Dask graph: started on this machine, or those of a scheduler elsewhere."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from tempfile import TemporaryDirectory

import dask
from distributed import Client, LocalCluster
from distributed.utils import LoopRunner

from ckd.pipeline.config.cluster import ClusterSettings
from ckd.storage.errors import UserError

_CONNECT = 10
"""Seconds in which a scheduler must answer."""

_QUIET = {
    "distributed.admin.low-level-log-length": 0,
    # A process that dies takes its run with it; the second time it is the run that is at fault.
    "distributed.scheduler.allowed-failures": 1,
    "distributed.comm.timeouts.connect": f"{_CONNECT}s",
}


def cores() -> int:
    """Return how many processes this machine can run at once; limits of containers count."""
    from dask.system import CPU_COUNT

    return int(CPU_COUNT)


@contextmanager
def workers(settings: ClusterSettings, processes: int, threads: int) -> Iterator[Client]:
    """Give the client of a cluster whose workers do one thing at a time.

    Processes on this machine end with the context, however it ends, and with this process, even if it is killed.

    Args:
        settings: where the workers are.
        processes: how many to start on this machine; a scheduler has its own.
        threads: of each of these, for the libraries that read it from the environment.

    Raises:
        UserError: there is no scheduler, or its workers do not fit.
    """
    with dask.config.set(_QUIET):
        if settings.scheduler is None:
            with _local(processes, threads) as client:
                yield client
        else:
            with _connected(settings.scheduler) as client:
                yield client


@contextmanager
def _connected(scheduler: str) -> Iterator[Client]:
    try:
        client = Client(scheduler, timeout=_CONNECT)
    except (OSError, ValueError):
        raise UserError(
            f"cluster.scheduler: no scheduler answers at {scheduler}; start one with `dask scheduler`, "
            "or set cluster: local"
        ) from None
    with client:
        found = client.scheduler_info(n_workers=-1)["workers"].values()
        if not found:
            raise UserError(
                f"cluster.scheduler: {scheduler} has no workers; start some with `dask worker {scheduler} --nthreads 1`"
            )
        if any(worker["nthreads"] > 1 for worker in found):
            raise UserError(
                f"cluster.scheduler: workers of {scheduler} have several threads, and a run needs a process of its "
                f"own; start them with `dask worker {scheduler} --nworkers N --nthreads 1`"
            )
        yield client


@contextmanager
def _local(processes: int, threads: int) -> Iterator[Client]:
    runner = LoopRunner()
    with TemporaryDirectory(prefix="ckd-workers-") as folder:
        with _deaf_to_interrupts():
            runner.start()
        cluster = None
        try:
            cluster = LocalCluster(
                n_workers=processes,
                threads_per_worker=1,
                processes=True,
                loop=runner.loop,
                memory_limit=0,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
                local_directory=folder,
                env={name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
            )
            with Client(cluster) as client:
                yield client
        except BaseException:
            if cluster is not None:
                _kill(cluster)
            raise
        finally:
            if cluster is not None:
                cluster.close()
            runner.stop()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Keep SIGINT from the threads that are started here, and from the processes that those start.

    Ctrl-C reaches every process of a terminal; this one alone must answer it.
    """
    resource_tracker.ensure_running()  # started later, by such a thread, it would make it listen again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _kill(cluster: LocalCluster) -> None:
    """End the processes at once: a run that is being trained would be waited for."""
    for nanny in cluster.workers.values():
        pid = nanny.pid
        nanny.close_gracefully()  # or it would start another one
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
