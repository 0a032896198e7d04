"""What ends a command early, in words and exit codes: a mistake, the file system, Ctrl-C."""

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

USER_ERROR = 2
"""Exit code after a mistake of the user."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""
GO_ON = "interrupted; run the same command again to go on"

_DENIED = {
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
    errno.EROFS: "the file system is read-only",
}
_FULL = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk quota used up",
    errno.EFBIG: "file too large for this file system or the limit of the shell",
}
_FAILING = {errno.EIO, errno.ESTALE, errno.ENXIO, errno.ETIMEDOUT}
"""What a disk, or a file system elsewhere, answers that does not work."""
_ELSEWHERE = {"botocore", "aiobotocore", "aiohttp", "s3fs", "gcsfs", "google", "adlfs", "azure"}
"""Packages that reach object stores, whose errors are of no common kind."""


_came = threading.Event()


def heed_interrupt() -> None:
    """Raise what a library lost: pyarrow imports pandas in its own code, and drops a Ctrl-C that arrives meanwhile.

    The exporter of ONNX does, too. It is asked at every epoch, at every move of a progress bar and before an export
    appears.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed since the command began.
    """
    if _came.is_set():
        raise KeyboardInterrupt


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Give what tells whether Ctrl-C was pressed while the body ran.

    It arrives as KeyboardInterrupt, but where a library's own code meets it, that may make another error of it: of a
    tensor's storage, torch then says that it cannot determine its shape.
    """
    _came.clear()

    def note(number: int, frame: FrameType | None) -> None:
        _came.set()
        signal.default_int_handler(number, frame)

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield _came.is_set
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield _came.is_set
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def unreachable(error: Exception) -> str | None:
    """Return the line for a store that stopped to answer; None for anything else."""
    if type(error).__module__.partition(".")[0] not in _ELSEWHERE:
        return None
    return f"the store could not be reached: {error}; nothing stored was harmed; run the same command again to go on"


def explained(error: OSError) -> str | None:
    """Return the line for a full or failing disk or a forbidden file; None for what is not the user's to mend."""
    number = error.errno or 0
    if number in _FAILING:
        place = f" at {error.filename}" if error.filename else ""
        return (
            f"the disk fails{place} ({os.strerror(number).lower()}): what is whole in the store is kept; mend it or "
            "name another store, and run the same command again"
        )
    if number in _FULL:
        place = f" at {error.filename}" if error.filename else ""
        return f"{_FULL[number]}{place}: nothing stored was harmed; make room and run the same command again"
    if number in _DENIED:
        return f"{error.filename or error}: {_DENIED[number]}; change its permissions, or name another store"
    return None
