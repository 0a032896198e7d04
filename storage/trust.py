"""Files whose bytes were compared with their digests already, so that many readers need not do it again."""

from collections.abc import Mapping
from pathlib import Path

Signature = tuple[int, int, int]
"""Inode, bytes and time of the last change in nanoseconds: another one, and the file is compared again."""

_known: dict[Path, Signature] = {}


def signature(path: Path) -> Signature:
    """Return what tells whether a file is still the one that was compared."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def trust(signatures: Mapping[Path, Signature]) -> None:
    """Take these files for compared in this process, as long as they keep their signatures."""
    _known.update(signatures)


def trusted(path: Path) -> bool:
    """Return whether a file was compared, and is still the same."""
    return path in _known and _known[path] == signature(path)
