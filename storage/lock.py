"""One writer per artifact: an advisory lock that the kernel drops when its process dies."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ckd.storage.errors import Busy


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file ``path`` while the body runs.

    The file stays behind, empty of meaning: only the kernel's lock counts, so a killed holder blocks nobody.

    Raises:
        Busy: another process holds it; the message says which, and on which host.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{what} is being written by {_holder(path)}; wait for it to end or stop it") from None
        stream.seek(0)
        stream.truncate()
        json.dump({"pid": os.getpid(), "host": socket.gethostname()}, stream)
        stream.flush()
        yield


def _holder(path: Path) -> str:
    try:
        record = json.loads(path.read_text())
        return f"process {record['pid']} on {record['host']}"
    except (ValueError, KeyError):
        return "another process"
