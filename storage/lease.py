"""One writer per artifact in an object store, which has no locks: a lease that its holder renews while it lives.

The lease is an object that names its holder. Where the store puts an object only if there is none (S3 and its like do),
two that come at once cannot both have it. A holder that is dead, or that has not renewed for ``EXPIRY`` seconds, is
followed by the next one. Clocks of different machines may differ by less than that.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckd.storage.disk import disk
from ckd.storage.errors import Busy
from ckd.storage.location import read

if TYPE_CHECKING:
    from upath import UPath

RENEWAL = 15.0
"""Seconds between renewals."""
EXPIRY = 120.0
"""Seconds after which a lease that was not renewed is anybody's."""
_SETTLED = 1.0
"""Seconds after which, of those that took over an expired lease at once, the last one can be told."""


@contextmanager
def leased(path: "UPath", what: str) -> Iterator[Callable[[], None]]:
    """Hold the lease ``path`` while the body runs, which gets what raises Busy as soon as it is another's.

    A process that was stopped for longer than ``EXPIRY`` may go on without its lease, so who is about to change what
    all can see asks.

    Raises:
        Busy: another process holds it; the message says which, and on which host.
    """
    mine = {"pid": os.getpid(), "host": socket.gethostname(), "space": _pid_space(), "nonce": uuid.uuid4().hex}
    _take(path, what, mine)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(path, mine, ended), daemon=True)
    renewing.start()

    def still_mine() -> None:
        holder = _read(path) or {}
        if holder.get("nonce") != mine["nonce"]:
            raise Busy(
                f"{what} was taken over by {_words(holder)}, for this one had not been heard of for {EXPIRY:.0f} "
                "seconds; run the same command again"
            )

    try:
        yield still_mine
    finally:
        ended.set()
        renewing.join()
        if (_read(path) or {}).get("nonce") == mine["nonce"]:
            disk().delete(path)


def living_lessee(path: "UPath") -> str | None:
    """Return who holds the lease, if that process lives; for a message, not to rely on."""
    record = _read(path)
    return _words(record) if record is not None and _lives(record) else None


def _take(path: "UPath", what: str, mine: dict[str, Any]) -> None:
    while True:
        with suppress(FileExistsError):
            disk().sign(path, _text(mine), new=True)
            return
        with suppress(FileNotFoundError):  # its holder has ended meanwhile: it is to be had as before
            record = _record(path)
            break
    if record is not None and _lives(record):
        raise Busy(f"{what} is being written by {_words(record)}; wait for it to end or stop it")
    disk().sign(path, _text(mine), new=False)
    time.sleep(_SETTLED)
    holder = _read(path) or {}
    if holder.get("nonce") != mine["nonce"]:
        raise Busy(f"{what} is being written by {_words(holder)}; wait for it to end or stop it")


def _renew(path: "UPath", mine: dict[str, Any], ended: threading.Event) -> None:
    while not ended.wait(RENEWAL):
        # Whatever it is, and not every client's errors are OSErrors: the next renewal may get through, and the body's
        # own writes say what is wrong.
        with suppress(Exception):
            if (_read(path) or {}).get("nonce") != mine["nonce"]:
                return  # somebody else's by now
            disk().sign(path, _text(mine), new=False)


def _lives(record: dict[str, Any]) -> bool:
    if record["host"] == socket.gethostname() and record.get("space") == _pid_space():
        try:
            os.kill(record["pid"], 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
    return bool(time.time() - record["renewed"] < EXPIRY)


def _pid_space() -> str:
    """Return what tells processes of one number apart: two containers may call themselves by one host name."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux, hence no containers
        return ""


def _read(path: "UPath") -> dict[str, Any] | None:
    """Return what a lease says, or None if there is none or it says nothing."""
    try:
        return _record(path)
    except FileNotFoundError:
        return None


def _record(path: "UPath") -> dict[str, Any] | None:
    try:
        record = json.loads(read(path))
        return record if record.keys() >= {"pid", "host", "nonce", "renewed"} else None
    except (ValueError, AttributeError):
        return None


def _text(mine: dict[str, Any]) -> bytes:
    return json.dumps({**mine, "renewed": time.time()}).encode()


def _words(record: dict[str, Any]) -> str:
    return f"process {record['pid']} on {record['host']}" if record else "another process"
