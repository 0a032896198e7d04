"""Processes that do the work of a Dask graph: started on this machine, or those of a scheduler elsewhere."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from shutil import rmtree
from tempfile import TemporaryDirectory
from types import FrameType

import dask
import psutil
from distributed import Client, LocalCluster
from distributed.utils import LoopRunner

from ckd.pipeline.config.cluster import ClusterSettings
from ckd.pipeline.mishaps import GO_ON, INTERRUPTED
from ckd.pipeline.progress import console
from ckd.storage.errors import UserError

_CONNECT = 10
"""Seconds in which a scheduler must answer."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_ANY_PORT = "127.0.0.1:0"
"""Of the HTTP servers that distributed always starts; there is nothing to be seen there."""
_DIE = 5
"""Seconds in which a killed process must be gone."""

_QUIET = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.admin.low-level-log-length": 0,
    # A process that dies takes its run with it; the second time it is the run that is at fault.
    "distributed.scheduler.allowed-failures": 1,
    # A process that was stopped for minutes (Ctrl-Z) is not dead; of one that is, the connection ends.
    "distributed.scheduler.worker-ttl": None,
    "distributed.comm.timeouts.connect": f"{_CONNECT}s",
}


def cores() -> int:
    """Return how many processes this machine can run at once; limits of containers count."""
    from dask.system import CPU_COUNT

    return int(CPU_COUNT)


@contextmanager
def workers(settings: ClusterSettings, processes: int, threads: int, tidy: Callable[[], None]) -> Iterator[Client]:
    """Give the client of a cluster whose workers do one thing at a time.

    Processes on this machine end with the context, and with this process, even if it is killed. Ctrl-C ends all of them
    within a second.

    Args:
        settings: where the workers are.
        processes: how many to start on this machine; a scheduler has its own.
        threads: of each of these, for the libraries that read it from the environment.
        tidy: called after Ctrl-C, when the processes of this machine have ended.

    Raises:
        UserError: there is no scheduler, or its workers do not fit.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with dask.config.set(_QUIET), TemporaryDirectory(prefix="ckd-workers-") as folder:

        def leave() -> None:
            rmtree(folder, ignore_errors=True)
            tidy()

        with (
            _leaving_at_once(leave),
            _connected(settings.scheduler) if settings.scheduler else _local(processes, threads, folder) as client,
        ):
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
def _local(processes: int, threads: int, folder: str) -> Iterator[Client]:
    runner = LoopRunner()
    with _deaf_to_interrupts():
        runner.start()
    try:
        with (
            LocalCluster(
                n_workers=processes,
                threads_per_worker=1,
                processes=True,
                loop=runner.loop,
                memory_limit=0,
                dashboard_address=_ANY_PORT,
                worker_dashboard_address=_ANY_PORT,
                silence_logs=logging.CRITICAL,
                local_directory=folder,
                env=dict.fromkeys(_THREADS, str(threads)),
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
    finally:
        runner.stop()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Keep SIGINT from the threads that are started here, and from the processes that those start.

    Ctrl-C reaches every process of a terminal; this one alone must answer it.
    """
    _start_tracker()  # later, a thread that starts it would listen again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _start_tracker() -> None:
    """Start the process that removes what others leave, which is to do so in silence when this one is killed."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore"
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


@contextmanager
def _leaving_at_once(tidy: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C end this process and those that it started within a second, and say how to go on.

    An exception would not do: raised while the garbage collector calls distributed back it is lost, raised while a
    cluster is started or stopped it leaves that half done, with tracebacks of threads; and stopping takes seconds.

    Args:
        tidy: called when the other processes have ended.
    """
    listens = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if listens else signal.SIG_IGN
    if before == signal.SIG_IGN:  # as for what a shell started in the background
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        said = _silence()
        try:
            _kill_children()
            tidy()
        finally:
            with suppress(RuntimeError, OSError):  # the signal may have come in the middle of a print
                console.show_cursor()
                sys.stdout.flush()
            os.write(said, f"{GO_ON}\n".encode())
            os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _silence() -> int:
    """Give standard error to nobody and return a descriptor of what it was.

    A thread of distributed starts a process for each that is killed; it would complain that its parent is gone.
    """
    nobody = os.open(os.devnull, os.O_WRONLY)
    if sys.stderr is None:  # closed by who started this process
        return nobody
    said = os.dup(sys.stderr.fileno())
    os.dup2(nobody, sys.stderr.fileno())
    return said


def _kill_children() -> None:
    children = [child for child in psutil.Process().children(recursive=True) if not _is_tracker(child)]
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(children, timeout=_DIE)


def _is_tracker(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return any("resource_tracker" in word for word in process.cmdline())
    return False
