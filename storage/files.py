"""The one seam through which the store touches the disk: durable writes, renames, digests."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_durably(path: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write a temporary file beside ``path``, flush it to the disk and rename it into place.

    A reader sees the old file or the new one, never a part of it. Whatever ``fill`` raises is passed on and
    the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.writing")
    try:
        fill(temporary)
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_text_durably(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 through :func:`write_durably`."""
    write_durably(path, lambda temporary: _write_all(temporary, text.encode()))


def sync(path: Path) -> None:
    """Flush a file's content, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_directory(source: Path, destination: Path) -> None:
    """Make ``source`` visible as ``destination`` by one rename, durably."""
    source.rename(destination)
    sync(destination.parent)


def remove_directory(path: Path) -> None:
    """Remove a directory tree if it is there."""
    if path.exists():
        shutil.rmtree(path)


def _write_all(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
