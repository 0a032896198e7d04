"""What identifies a frozen teacher: the digests of its files. Imports nothing heavy."""

import json
from collections.abc import Mapping
from pathlib import Path

from ckd.storage.errors import UserError
from ckd.storage.files import sha256_file

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def named_file(path: str, domain: str, key: str) -> Path:
    """Return the file that a configuration names, in which ``{domain}`` may stand.

    Raises:
        UserError: it is not there.
    """
    file = Path(path.replace("{domain}", domain))
    if not file.is_file():
        what = "is no file" if file.exists() else "does not exist"
        raise UserError(
            f"{key}: {file} {what}; name an existing file, with {{domain}} where its name differs by domain"
        )
    return file


def folder_files(folder: Path, names: tuple[str, ...], key: str) -> dict[str, Path]:
    """Return the files of a frozen teacher in a folder, by name.

    Args:
        folder: where the teacher is.
        names: of the files that must be there.
        key: the configuration key that named the folder, for the message.

    Raises:
        UserError: the folder or one of the files is missing.
    """
    for name in names:
        if not (folder / name).is_file():
            raise UserError(
                f"{key}: {folder / name} does not exist; such a teacher is a folder with {' and '.join(names)}"
            )
    return {name: folder / name for name in names}


def refuse_other_kind(config: Path, kind: str) -> None:
    """Refuse a ``config.json`` that says that it is of another kind of teacher; one that says nothing passes.

    Raises:
        UserError: naming the kind that it is of.
    """
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return  # whoever opens it says what is wrong with it
    found = content.get("kind") if isinstance(content, dict) else None
    if isinstance(found, str) and found != kind:
        raise UserError(f"{config} is of a teacher of kind {found}; set kind: {found}, or name the folder of a {kind}")


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of each file, by role."""
    return {role: sha256_file(path) for role, path in files.items()}
