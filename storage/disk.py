"""The one seam through which the store changes anything: every write, flush, rename and removal is one call of it.

Databases are tested by letting the n-th such call fail, for n = 1, 2, 3, ... (SQLite, "How SQLite Is Tested", 3.2 and
3.3). :func:`through` puts a disk that fails, or that loses what was not flushed, in place of the real one.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upath import UPath

Fill = Callable[[Path], None]
"""Writes a file of this machine."""


class Disk:
    """The real thing. Paths are of this machine, but for ``put``, ``sign``, ``copy`` and ``delete``."""

    def write(self, path: Path, fill: Fill) -> None:
        """Let ``fill`` write a file."""
        fill(path)

    def sync(self, path: Path) -> None:
        """Flush a file's content, or a folder's entries, to the disk."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, destination: Path) -> None:
        """Rename a file, replacing another one, or a folder."""
        source.replace(destination)

    def link(self, source: Path, destination: Path) -> None:
        """Give a file a second name; where the file system cannot, copy it."""
        destination.unlink(missing_ok=True)
        try:
            destination.hardlink_to(source)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                raise
            shutil.copyfile(source, destination)
            Disk.sync(self, destination)

    def make_folder(self, path: Path) -> None:
        """Make a folder and those above it, if they are not there."""
        path.mkdir(parents=True, exist_ok=True)

    def remove(self, path: Path) -> None:
        """Remove a file if it is there."""
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder with all in it."""
        shutil.rmtree(path)

    def put(self, source: Path, destination: "UPath") -> None:
        """Upload a file as one object, which appears whole or not at all."""
        destination.fs.put_file(str(source), destination.path)

    def sign(self, path: "UPath", text: bytes, new: bool) -> None:
        """Put a short object.

        Raises:
            FileExistsError: it is to be ``new``, and there is one.
        """
        path.fs.pipe_file(path.path, text, mode="create" if new else "overwrite")

    def copy(self, source: "UPath", destination: "UPath") -> None:
        """Copy an object within its store."""
        source.fs.cp_file(source.path, destination.path)

    def delete(self, path: "UPath") -> None:
        """Delete an object if it is there."""
        try:
            path.fs.rm_file(path.path)
        except FileNotFoundError:
            return

    def clear(self, path: "UPath") -> None:
        """Remove the empty folders that some file systems keep of objects that are gone."""
        with suppress(FileNotFoundError):
            path.fs.rm(path.path, recursive=True)


_disks = [Disk()]


def disk() -> Disk:
    """Return the disk that is in use."""
    return _disks[-1]


@contextmanager
def through(other: Disk) -> Iterator[Disk]:
    """Use another disk while the body runs, in this process."""
    _disks.append(other)
    try:
        yield other
    finally:
        _disks.remove(other)
