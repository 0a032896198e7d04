"""How much memory this process may take."""

import resource
from pathlib import Path

_DATA_PAGES = 5
"""Place of the pages that the limit counts in ``/proc/self/statm``."""


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
