"""The place that a file or folder is written to, which the user names."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ckd.storage.disk import Fill
from ckd.storage.errors import UserError
from ckd.storage.files import write_durably

_NO_PLACE = {
    getattr(errno, name)
    for name in ["EACCES", "EPERM", "EROFS", "ENOENT", "ENOTDIR", "EISDIR", "EEXIST", "ENAMETOOLONG", "ELOOP", "EINVAL"]
}


@contextmanager
def usable(out: Path) -> Iterator[None]:
    """Blame what the file system says of a place on whoever named it.

    Raises:
        UserError: nothing can be written there.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        raise UserError(f"--out {out}: {os.strerror(error.errno or 0).lower()}; name another place") from None


def try_out(out: Path) -> None:
    """Make the folders above a file, and see whether one can be made there: before it is computed, not after."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(prefix=f".{out.name}.", suffix=".writing", dir=out.parent):
        pass


def write_out(out: Path, fill: Fill) -> None:
    """Write a file so that it is there whole or not at all; of two processes that do so at once the later one stays."""
    write_durably(out, fill, aside=f".{out.name}.{os.getpid()}.writing")
