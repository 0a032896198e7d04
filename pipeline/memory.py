"""How much memory this process may take, and what it does with what it no longer needs."""

import ctypes
import resource
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_DATA_PAGES = 5
"""Place of the pages that the limit counts in ``/proc/self/statm``."""
_KEEP_FREED = {-1: 2**31 - 1, -2: 64 * 2**20, -3: 32 * 2**20}
"""Of glibc's ``mallopt`` (malloc.h): M_TRIM_THRESHOLD, M_TOP_PAD, and M_MMAP_THRESHOLD, which is at its limit."""


def hold_memory(size: int) -> None:
    """Let this process allocate at most so many bytes beyond what it has; more is a ``MemoryError``.

    DuckDB's own limit counts tables and intermediate results, but no single value: ``range(600000000)`` took 5 GB
    under a limit of 300 MB. The kernel counts all. Elsewhere than on Linux nothing happens.
    """
    if not (statm := Path("/proc/self/statm")).exists():
        return
    used = int(statm.read_text().split()[_DATA_PAGES]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([used + size, *limits]), hard))


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors for the next ones; with another C library nothing happens.

    Dask starts its workers with MALLOC_TRIM_THRESHOLD_=65536, and with that the memory of each step goes back to the
    system and comes again page by page, each of them cleared; this went on for a third of the time of a training. A
    process now holds the most that it ever needed until it ends.
    """
    with _without_glibc_nothing():
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in _KEEP_FREED.items():
            mallopt(parameter, value)


def _without_glibc_nothing() -> AbstractContextManager[None]:
    return suppress(AttributeError, OSError, TypeError)


def freed_after(report: Callable[[T], None]) -> Callable[[T], None]:
    """Return what reports an epoch and then gives memory that no tensor takes back to the system.

    What :func:`keep_freed_memory` keeps comes to lie in pieces where the tensors of each step have other sizes: a
    teacher's adaptation to 12,000 items came to hold 4 GB, ten times what a step needs. An epoch takes so long that to
    ask for a step's memory anew costs nothing.
    """

    def done(row: T) -> None:
        report(row)
        with _without_glibc_nothing():
            ctypes.CDLL(None).malloc_trim(0)

    return done
