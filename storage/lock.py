"""One writer per artifact: an advisory lock that the kernel drops when its process dies."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ckd.storage.disk import disk
from ckd.storage.errors import Busy, UserError
from ckd.storage.files import make_folder
from ckd.storage.lease import leased, living_lessee
from ckd.storage.location import Location


@contextmanager
def exclusive(path: Location, what: str) -> Iterator[Callable[[], None]]:
    """Hold the lock file ``path`` while the body runs; in an object store, which has no locks, a lease.

    The file stays behind, empty of meaning: only the kernel's lock counts, so a killed holder blocks nobody. The body
    gets what raises Busy where it holds nothing any more, which only happens to a lease.

    Raises:
        Busy: another process holds it; the message says which, and on which host.
        UserError: the folder cannot be made, or its file system has no locks.
    """
    if not isinstance(path, Path):
        with leased(path, what) as still_mine:
            yield still_mine
        return
    try:
        make_folder(path.parent)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"the store cannot be made: {error.filename}: {error.strerror}; name another folder") from None
    with _locked(path, what) as stream:
        disk().write(path, lambda _: _sign(stream))
        yield lambda: None


@contextmanager
def _locked(path: Path, what: str) -> Iterator[TextIO]:
    while True:
        disk().write(path, Path.touch)
        with path.open("r+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(f"{what} is being written by {_holder(path)}; wait for it to end or stop it") from None
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                    raise
                raise UserError(f"{path.parent}: its file system has no locks; put the store on one that has") from None
            if _is_at(stream, path):
                yield stream
                return


def _is_at(stream: TextIO, path: Path) -> bool:
    """Return whether an open file is still the one at its path: one that was removed meanwhile locks nothing."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def held(path: Location) -> str | None:
    """Return the living process, of any host, that holds a lock, in words, or None."""
    if not isinstance(path, Path):
        return living_lessee(path)
    try:
        if _last_holder_is_dead(path):
            return None
        with path.open("rb") as stream:
            # For a moment, and shared: who comes in it for the lock itself is refused.
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except BlockingIOError:
        return _holder(path)
    except FileNotFoundError:
        return None


def _last_holder_is_dead(path: Path) -> bool:
    try:
        record = json.loads(path.read_text())
        if record["host"] == socket.gethostname():
            os.kill(record["pid"], 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError, KeyError, TypeError):
        return False
    return False


def discard(path: Location) -> None:
    """Remove the file of a lock, unless somebody holds it."""
    if not isinstance(path, Path):
        if living_lessee(path) is None:
            disk().delete(path)
        return
    try:
        with path.open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(stream, path):
                disk().remove(path)
    except (BlockingIOError, FileNotFoundError):
        return


def living_holder(path: Location) -> str | None:
    """Return who wrote the lock file last, if that process still lives on this host; for a message, not to rely on."""
    if not isinstance(path, Path):
        return living_lessee(path)
    try:
        record = json.loads(path.read_text())
        if record["host"] != socket.gethostname():
            return None
        os.kill(record["pid"], 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _holder(path)


def _sign(stream: TextIO) -> None:
    # Through the stream that is locked: on some network file systems, to close another one would end the lock.
    stream.truncate()
    json.dump({"pid": os.getpid(), "host": socket.gethostname()}, stream)
    stream.flush()


def _holder(path: Path) -> str:
    try:
        record = json.loads(path.read_text())
        return f"process {record['pid']} on {record['host']}"
    except (ValueError, KeyError):
        return "another process"
