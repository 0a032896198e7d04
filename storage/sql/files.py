"""The only file system that a query sees: a fixed list of files, open for reading.

DuckDB's own locks are not enough. With external access off and ``allowed_paths`` set to the exact files,
DuckDB 2.0 still overwrites such a file when a query holds ``WITH x AS (COPY ... TO '<file>' (use_tmp_file
false))``, which it counts as a SELECT. So the local file system is off altogether, and this one cannot write.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from fsspec import AbstractFileSystem

from ckd.storage.artifact import Artifact

PROTOCOL = "ckd"


def virtual_name(artifact: Artifact, name: str) -> str:
    """Return the name by which queries know a file: no character of it comes from a user's path."""
    return f"{PROTOCOL}://{artifact.manifest['kind']}/{artifact.path.name.removeprefix('key=')}/{name}"


class ReadOnlyFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Reads the files it was made with and nothing else; every other operation fails."""

    protocol = PROTOCOL
    cachable = False

    def __init__(self, paths: Mapping[str, Path]) -> None:
        super().__init__()
        self._paths = {self._strip_protocol(name): path for name, path in paths.items()}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix(f"{PROTOCOL}://")

    def _open(self, path: str, mode: str = "rb", **_: Any) -> BinaryIO:
        if mode != "rb":
            raise PermissionError(f"{path} is read-only")
        return self._path(path).open("rb", buffering=0)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return name, size and type of a file."""
        return {"name": path, "size": self._path(path).stat().st_size, "type": "file"}

    def modified(self, path: str) -> datetime:
        """Return when a file was last written."""
        return datetime.fromtimestamp(self._path(path).stat().st_mtime, UTC)

    def glob(self, path: str, **_: Any) -> list[str]:
        """Return the file of exactly that name; no character is a wildcard."""
        name = self._strip_protocol(path)
        return [name] if name in self._paths else []

    def _path(self, path: str) -> Path:
        try:
            return self._paths[self._strip_protocol(path)]
        except KeyError:
            raise FileNotFoundError(path) from None
