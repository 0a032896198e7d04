"""Which corpus a domain's settings and raw files make. Imports nothing heavy: ``ckd status`` asks it."""

from typing import Any

from ckd.stages.prepare.files import RawFile, find_raw_files
from ckd.stages.prepare.settings import DomainSettings
from ckd.storage.errors import UserError
from ckd.storage.files import sha256_file
from ckd.storage.formats import CORPUS_FORMAT
from ckd.storage.keys import Address


def corpus_address(settings: DomainSettings) -> Address:
    """Return the address of the corpus that these settings make from the raw files as they are now.

    The key holds the bytes of the raw files, never where they are or when they were written. ``max_rejected``
    is not part of it: it decides whether there is a corpus, not what is in it.

    Raises:
        UserError: the folder or one of its files is missing, ambiguous or unreadable.
    """
    raw = find_raw_files(settings.path, settings.format)
    inputs = {
        **{role: _identity(file) for role, file in raw.by_role.items()},
        # A column mapped to its own name changes nothing.
        "columns": {ours: theirs for ours, theirs in settings.columns.items() if ours != theirs},
        "k_core": settings.k_core,
        "format": CORPUS_FORMAT,
    }
    return Address("corpus", inputs)


def _identity(file: RawFile) -> dict[str, Any]:
    try:
        return {"sha256": sha256_file(file.path), "reader": file.format}
    except OSError as error:
        raise UserError(f"{file.path} cannot be read ({error.strerror}); check its permissions") from error
