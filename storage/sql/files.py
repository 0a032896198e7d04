"""The only file system that a query sees: a fixed list of files, open for reading.

DuckDB's own locks are not enough. With external access off and ``allowed_paths`` set to the exact files,
DuckDB 2.0 still overwrites such a file when a query holds ``WITH x AS (COPY ... TO '<file>' (use_tmp_file
false))``, which it counts as a SELECT. So the local file system is off altogether, and this one cannot write.
"""

import os
import threading
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from fsspec import AbstractFileSystem

from ckd.storage.artifact import Artifact

PROTOCOL = "ckd"


class StoredFile(NamedTuple):
    """One file of an artifact."""

    artifact: Artifact
    name: str

    @property
    def path(self) -> Path:
        """Where it is on this machine."""
        return self.artifact.local(self.name)

    @property
    def virtual_name(self) -> str:
        """The name by which queries know it: no character of it comes from a user's path."""
        key = self.artifact.path.name.removeprefix("key=")
        return f"{PROTOCOL}://{self.artifact.manifest['kind']}/{key}/{self.name}"


class ReadOnlyFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Reads the files it was made with and nothing else; every other operation fails.

    A file is compared with its recorded digest, footer and all, when it is first opened: DuckDB ignores page checksums.
    Nothing of that is remembered beyond the process, for what rots on a disk keeps its size and its time of change.
    Several threads compare several files at once: hashing does not hold the interpreter.
    """

    protocol = PROTOCOL
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self._files: dict[str, StoredFile] = {}
        self._verified: set[str] = set()
        self._verifying: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def add(self, file: StoredFile) -> str:
        """Let a file be read; return the name by which queries know it."""
        self._files[self._strip_protocol(file.virtual_name)] = file
        return file.virtual_name

    @property
    def names(self) -> list[str]:
        """The names by which queries know the files."""
        return [file.virtual_name for file in self._files.values()]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix(f"{PROTOCOL}://")

    def _open(self, path: str, mode: str = "rb", **_: Any) -> "_SharedFile":
        if mode != "rb":
            raise PermissionError(f"{path} is read-only")
        return _SharedFile(self.verified(path))

    def verified(self, path: str) -> Path:
        """Return where a file is, after comparing it with its digest if that was not done yet.

        Raises:
            DamagedArtifact: they differ.
        """
        file = self._file(path)
        with self._verifying[file.virtual_name]:
            if file.virtual_name not in self._verified:
                file.artifact.verified(file.name)
                self._verified.add(file.virtual_name)
        return file.path

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return name, size and type of a file."""
        return {"name": path, "size": self._file(path).path.stat().st_size, "type": "file"}

    def modified(self, path: str) -> datetime:
        """Return when a file was last written."""
        return datetime.fromtimestamp(self._file(path).path.stat().st_mtime, UTC)

    def glob(self, path: str, **_: Any) -> list[str]:
        """Return the file of exactly that name; no character is a wildcard."""
        name = self._strip_protocol(path)
        return [name] if name in self._files else []

    def _file(self, path: str) -> StoredFile:
        try:
            return self._files[self._strip_protocol(path)]
        except KeyError:
            raise FileNotFoundError(path) from None


class _SharedFile:
    """An open file with a position per thread.

    DuckDB's threads share one file object, and each seeks and then reads, in two calls. With one position for
    all, the seek of another thread may come between: a query then fails, or would give wrong rows.
    """

    closed = True  # until there is a descriptor: __del__ runs for what could not be opened, too

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._descriptor).st_size
        self._positions: dict[int, int] = {}
        self.closed = False

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET:
            offset += self.tell() if whence == os.SEEK_CUR else self._size
        self._positions[threading.get_ident()] = offset
        return offset

    def tell(self) -> int:
        return self._positions[threading.get_ident()]  # a thread that has not sought would read anything

    def read(self, size: int) -> bytes:
        pieces = []
        while size > 0 and (piece := os.pread(self._descriptor, size, self.tell())):
            pieces.append(piece)
            size -= len(piece)
            self.seek(len(piece), os.SEEK_CUR)
        return b"".join(pieces)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._descriptor)

    def __del__(self) -> None:
        self.close()
