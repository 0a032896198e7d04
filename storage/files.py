"""Durable writes, moves and digests, on a disk and in an object store alike.

On a disk a file is flushed under another name and renamed into place; a folder becomes visible by one rename. An object
store knows no rename, but puts one object whole or not at all: there a folder is copied, its last file last.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckd.storage.disk import Fill, disk
from ckd.storage.location import Location

if TYPE_CHECKING:
    from upath import UPath


@dataclass(frozen=True)
class Written:
    """What a file held when it was written: bytes and hex SHA-256."""

    bytes: int
    sha256: str


def sha256_file(path: Location) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    stream: Any
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_durably(path: Location, fill: Fill, aside: str | None = None) -> Written:
    """Let ``fill`` write a temporary file, flush it to the disk and move it to ``path``; return what it holds.

    A reader sees the old file or the new one, never a part of it. Whatever ``fill`` raises is passed on and
    the temporary file is removed.

    Args:
        path: the file.
        fill: writes it.
        aside: name of the temporary file on a disk, for who does not hold the only right to write ``path``.
    """
    if not isinstance(path, Path):
        return _upload(path, fill)
    temporary = path.with_name(aside or f".{path.name}.writing")
    try:
        disk().write(temporary, fill)
        disk().sync(temporary)
        written = Written(temporary.stat().st_size, sha256_file(temporary))
        disk().rename(temporary, path)
        disk().sync(path.parent)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a write or a flush does not know of what
        with suppress(OSError):  # what went wrong first is what is to be said
            disk().remove(temporary)
        raise
    return written


def write_text_durably(path: Location, text: str) -> Written:
    """Write ``text`` as UTF-8 through :func:`write_durably`."""
    return write_durably(path, lambda temporary: _write_all(temporary, text.encode()))


def make_folder(path: Location) -> None:
    """Make a folder and those above it, durably, if they are not there; an object store has none."""
    if isinstance(path, Path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        disk().make_folder(path)
        for folder in missing:
            disk().sync(folder.parent)


def settle(path: Location) -> None:
    """Make what was put into a folder, or taken out of it, durable; in an object store it is."""
    if isinstance(path, Path):
        disk().sync(path)


def move_directory(source: Location, destination: Location, last: str) -> None:
    """Make the folder ``source`` visible as ``destination``, durably; of an object store, its file ``last`` last.

    Nothing may be at the destination. Folders inside ``source`` do not come along in an object store.
    """
    if isinstance(source, Path) and isinstance(destination, Path):
        disk().rename(source, destination)
        disk().sync(destination.parent)
        return
    names = sorted(sizes(source), key=lambda name: (name == last, name))
    for name in names:
        disk().copy(source / name, destination / name)  # type: ignore[arg-type]  # both are of the same store
    remove_directory(source, last)


def duplicate(source: Location, destination: Location) -> None:
    """Give a file that will not be changed a second name in another folder; durable as soon as the folder is synced."""
    if isinstance(source, Path) and isinstance(destination, Path):
        disk().link(source, destination)
    else:
        disk().copy(source, destination)  # type: ignore[arg-type]  # both are of the same store


def remove_file(path: Location) -> None:
    """Remove a file if it is there."""
    if isinstance(path, Path):
        disk().remove(path)
    else:
        disk().delete(path)


def remove_directory(path: Location, first: str | None = None) -> None:
    """Remove a folder if it is there; its file ``first`` before all others, for no part of it to be taken for whole."""
    if isinstance(path, Path):
        if path.exists():
            if first is not None:
                disk().remove(path / first)
            disk().remove_tree(path)
        return
    for name in sorted((name for name, _ in _found(path)), key=lambda name: (name != first, name)):
        disk().delete(path / name)
    disk().clear(path)


def sizes(path: Location) -> dict[str, int]:
    """Return the bytes of each file directly in a folder, by name; of none where there is no folder."""
    if isinstance(path, Path):
        try:
            return {entry.name: entry.stat().st_size for entry in path.iterdir() if entry.is_file()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
    return {name: size for name, size in _found(path) if "/" not in name}


def bytes_below(path: Location) -> int:
    """Return the bytes of all files below a folder, or of a file; none where neither is."""
    if not isinstance(path, Path):
        return sum(size for _, size in _found(path))
    try:
        return path.stat().st_size if path.is_file() else sum(map(bytes_below, path.iterdir()))
    except FileNotFoundError:  # somebody removed it meanwhile
        return 0


def _found(path: "UPath") -> Iterator[tuple[str, int]]:
    """Yield name, counted from the folder, and bytes of every object below a folder."""
    try:
        found = path.fs.find(path.path, detail=True)
    except FileNotFoundError:
        return
    for name, record in found.items():
        yield name.removeprefix(path.path).lstrip("/"), record["size"]


def _upload(path: "UPath", fill: Fill) -> Written:
    with tempfile.TemporaryDirectory(prefix="ckd-") as folder:
        temporary = Path(folder) / path.name
        disk().write(temporary, fill)
        written = Written(temporary.stat().st_size, sha256_file(temporary))
        disk().put(temporary, path)
    return written


def _write_all(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
