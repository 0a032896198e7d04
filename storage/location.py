"""Where a store is: a folder of this machine, or the prefix of an object store."""

from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias

from ckd.storage.errors import UserError

if TYPE_CHECKING:
    from upath import UPath

Location: TypeAlias = "Path | UPath"
"""A folder or file: a Path where it is on this machine, a UPath (fsspec) where it is not."""

_SCHEME = "://"
FILE_URL = f"file{_SCHEME}"
"""What a path of this machine may start with."""


def is_url(text: str) -> bool:
    """Return whether a text names a place on another file system, such as ``s3://bucket/prefix``."""
    return _SCHEME in text and not text.startswith(FILE_URL)


def location(text: str | Path) -> Location:
    """Return the place that a path or an fsspec URL names.

    Raises:
        UserError: no package that knows the URL's scheme is installed, or the bucket is not there or not to be reached.
    """
    if isinstance(text, Path) or not is_url(text):
        return Path(str(text).removeprefix(FILE_URL))
    from upath import UPath

    try:
        # Another process may write at any time: what was listed a moment ago must not be taken for what is there.
        found = UPath(text.rstrip("/"), use_listings_cache=False)
        _ = found.fs
    except (ImportError, ValueError) as error:
        scheme = text.partition(_SCHEME)[0]
        raise UserError(
            f"store {text}: {scheme}{_SCHEME} cannot be opened ({error}); install the fsspec package for it, "
            "such as s3fs, gcsfs or adlfs"
        ) from None
    _check_bucket(found, text)
    return found


def _check_bucket(place: "UPath", text: str) -> None:
    bucket = place.path.partition("/")[0]  # nothing in front of a path that starts at a root
    if not bucket:
        return
    try:
        place.fs.info(bucket)
    except FileNotFoundError:
        raise UserError(f"store {text}: there is no bucket {bucket!r}; make it first, or name another store") from None
    except Exception as error:  # every kind of file system has its own
        raise UserError(f"store {text} cannot be reached: {error}; check the address and your credentials") from error


def read(path: Location) -> bytes:
    """Return what a file holds, as of one moment.

    Raises:
        FileNotFoundError: there is none.
    """
    if isinstance(path, Path):
        return path.read_bytes()
    content: bytes = path.fs.cat_file(path.path)
    return content


def inside(folder: Location) -> list[Location]:
    """Return what is directly in a folder, in order of path; an object store has no folders, so none is empty there."""
    try:
        return _in_order(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        if isinstance(folder, Path):
            raise
        return []


def matching(folder: Location, pattern: str) -> list[Location]:
    """Return what matches a glob pattern below a folder, in order of path.

    Raises:
        PermissionError: what may not be read is not taken for empty, as ``Path.glob`` does: what nothing seems to
            refer to any more is removed.
    """
    if not isinstance(folder, Path):
        return _in_order(folder.glob(pattern))
    found = [folder]
    for part in PurePosixPath(pattern).parts:
        found = [path for above in found for path in _children(above, part)]
    return _in_order(found)


def _children(folder: Path, pattern: str) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if fnmatchcase(path.name, pattern)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def below(path: Location, folder: Location) -> tuple[str, ...]:
    """Return the parts of a path that come after those of a folder above it."""
    return PurePosixPath(str(path)).relative_to(str(folder)).parts


def _in_order(found: Any) -> list[Location]:
    return sorted(found, key=str)
