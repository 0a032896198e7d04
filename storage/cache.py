"""Copies on this machine of the files of a store that is elsewhere, by digest; they may be removed at any time."""

import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ckd.storage.disk import disk
from ckd.storage.files import sha256_file

if TYPE_CHECKING:
    from upath import UPath

VARIABLE = "CKD_CACHE"
"""Environment variable that names the folder; by default ``ckd`` in the user's folder of caches."""


def cache_folder() -> Path:
    """Return the folder of the copies."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(VARIABLE) or caches / "ckd")


def local_copy(path: "UPath", sha256: str) -> Path:
    """Return a file of this machine, under the same name, that holds the bytes of ``path``.

    They are compared with the digest when they are fetched, not when they are found.

    Raises:
        ValueError: what was fetched has another digest.
    """
    copy = cache_folder() / sha256[:2] / sha256 / path.name
    if copy.is_file():
        return copy
    disk().make_folder(copy.parent)
    fetched = copy.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        disk().write(fetched, lambda local: path.fs.get_file(path.path, str(local)))
        if sha256_file(fetched) != sha256:
            raise ValueError(f"{path} has other bytes than SHA-256 {sha256}")
        disk().rename(fetched, copy)
    except BaseException:
        with suppress(OSError):  # what went wrong first is what is to be said
            disk().remove(fetched)
        raise
    return copy


def forget(copy: Path) -> None:
    """Remove a copy that is not what it was."""
    disk().remove(copy)
