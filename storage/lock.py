"""One writer per artifact: an advisory lock that the kernel drops when its process dies."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ckd.storage.disk import disk
from ckd.storage.errors import Busy, UserError
from ckd.storage.files import make_folder
from ckd.storage.lease import leased, living_lessee
from ckd.storage.location import Location


@contextmanager
def exclusive(path: Location, what: str) -> Iterator[None]:
    """Hold the lock file ``path`` while the body runs; in an object store, which has no locks, a lease.

    The file stays behind, empty of meaning: only the kernel's lock counts, so a killed holder blocks nobody.

    Raises:
        Busy: another process holds it; the message says which, and on which host.
        UserError: the folder cannot be made, or its file system has no locks.
    """
    if not isinstance(path, Path):
        with leased(path, what):
            yield
        return
    try:
        make_folder(path.parent)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"the store cannot be made: {error.filename}: {error.strerror}; name another folder") from None
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
        disk().write(path, lambda _: _sign(stream))
        yield


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
