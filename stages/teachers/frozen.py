"""What identifies a frozen teacher: the digests of its files. Imports nothing heavy."""

from pathlib import Path

from ckd.storage.errors import UserError
from ckd.storage.files import sha256_file

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def frozen_digests(folder: Path, key: str) -> dict[str, str]:
    """Return the SHA-256 of a frozen teacher's files, by file name.

    Args:
        folder: where the teacher is.
        key: the configuration key that named the folder, for the message.

    Raises:
        UserError: the folder or one of the files is missing.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(
                f"{key}: {folder / name} does not exist; a frozen teacher is a folder with {CONFIG} and {WEIGHTS}"
            )
    return {name: sha256_file(folder / name) for name in (CONFIG, WEIGHTS)}
