"""Disks that fail their n-th call, in the ways in which disks and processes fail."""

import errno
import os
import signal
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

from ckd.storage.disk import Disk

CALLS = tuple(name for name in vars(Disk) if not name.startswith("_"))
"""All that can be done to a disk; each of them is one call."""
_GIVE_BACK = ("remove", "remove_tree", "delete", "clear")
"""What a full disk can still do: it is the write after it that fails."""


class FailingDisk(Disk):
    """The real disk, whose n-th call fails.

    Args:
        n: the call, from 1.
        how: one of ``FAILURES``.
    """

    def __init__(self, n: int, how: str) -> None:
        self.n, self.how = n, how
        self.calls = 0

    @property
    def failed(self) -> bool:
        """Whether the n-th call came."""
        return self.calls >= self.n

    def _call(self, name: str, *arguments: Any, **named: Any) -> None:
        self.calls += 1

        def work() -> None:
            getattr(Disk, name)(self, *arguments, **named)

        if self.calls < self.n:
            work()
        else:
            FAILURES[self.how](name, arguments, work, self.calls == self.n)


for each in CALLS:
    setattr(FailingDisk, each, partialmethod(FailingDisk._call, each))


def _half(name: str, arguments: tuple[Any, ...], work: Callable[[], None]) -> None:
    """Do what is asked; of a file, write the first half only."""
    work()
    if name == "write":
        os.truncate(arguments[0], Path(arguments[0]).stat().st_size // 2)


def _full(name: str, arguments: tuple[Any, ...], work: Callable[[], None], first: bool) -> None:
    """There is no space from now on; of the file that is being written there was for half."""
    if name in _GIVE_BACK:
        work()
        return
    if first and name == "write":
        _half(name, arguments, work)
    raise _error(errno.ENOSPC, name, arguments)


def _unreadable(name: str, arguments: tuple[Any, ...], work: Callable[[], None], first: bool) -> None:
    """The call is not done; those after it are."""
    if not first:
        work()
        return
    raise _error(errno.EIO, name, arguments)


def _late(name: str, arguments: tuple[Any, ...], work: Callable[[], None], first: bool) -> None:
    """The call is done, and yet reported as failed."""
    work()
    if first:
        raise _error(errno.EIO, name, arguments)


def _gone(name: str, arguments: tuple[Any, ...], work: Callable[[], None], first: bool) -> None:
    """Nothing is done from now on."""
    raise _error(errno.EIO, name, arguments)


def _killed_before(name: str, arguments: tuple[Any, ...], work: Callable[[], None], first: bool) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed_within(name: str, arguments: tuple[Any, ...], work: Callable[[], None], first: bool) -> None:
    _half(name, arguments, work)
    os.kill(os.getpid(), signal.SIGKILL)


def _interrupted(name: str, arguments: tuple[Any, ...], work: Callable[[], None], first: bool) -> None:
    if first:
        raise KeyboardInterrupt
    work()


def _error(number: int, name: str, arguments: tuple[Any, ...]) -> OSError:
    # As the kernel has it: only calls that take a name, not those that write or flush, say of what they speak.
    named = () if name in ("write", "sync") else (str(arguments[0]),)
    return OSError(number, os.strerror(number), *named)


FAILURES: dict[str, Callable[[str, tuple[Any, ...], Callable[[], None], bool], None]] = {
    "no space": _full,
    "I/O error": _unreadable,
    "I/O error, done": _late,
    "disk gone": _gone,
    "kill before": _killed_before,
    "kill within": _killed_within,
    "Ctrl-C": _interrupted,
}
