"""A frozen teacher on disk: ``config.json`` and ``model.safetensors``. Opening one runs no foreign code."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ckd.stages.settings import Settings
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError
from ckd.storage.keys import canonical_json

C = TypeVar("C", bound=Settings)


def catalogue_digest(corpus: Corpus) -> str:
    """Return the SHA-256 of a catalogue's item ids in order of code: what an item ID table belongs to."""
    return hashlib.sha256(canonical_json(corpus.items["item_id"].to_pylist()).encode()).hexdigest()


def save_weights(model: nn.Module, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the weights of a network as safetensors."""
    # Not save_file: what it raises on a full disk is no OSError.
    path.write_bytes(save({name: tensor.detach().to("cpu", dtype) for name, tensor in model.state_dict().items()}))


def save_config(config: Settings, path: Path) -> None:
    """Write what the weights do not say, as JSON."""
    path.write_text(json.dumps(config.model_dump(mode="json"), indent=1) + "\n")


def read_config(folder: Path, model: type[C]) -> C:
    """Read ``config.json`` of a frozen teacher as the settings of its kind.

    Raises:
        UserError: it is missing, or the configuration of something else.
    """
    path = folder / CONFIG
    try:
        return model.model_validate(json.loads(path.read_text()))
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no {CONFIG}: a frozen teacher is a folder with {CONFIG} and {WEIGHTS}"
        ) from None
    except (ValueError, RecursionError, ValidationError) as error:
        problem = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        place = ".".join(str(part) for part in problem["loc"])
        raise UserError(f"{path}: {place or 'not JSON'}: {problem['msg']}") from None


def read_weights(path: Path, model: nn.Module, name: str) -> None:
    """Fill a network with the weights in a file, float32, and put it in evaluation mode.

    Args:
        path: safetensors.
        model: the network that ``config.json`` describes.
        name: what it is called, for messages.

    Raises:
        UserError: the file is missing or torn, or does not fit; names the first tensor that is missing, unknown, of
            another shape or not finite.
    """
    try:
        tensors = load_file(path)
    except (FileNotFoundError, SafetensorError) as error:
        raise UserError(f"{path} cannot be opened as safetensors: {error}") from None
    check_tensors(path, tensors, model.state_dict(), name)
    model.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
    model.eval()


def check_tensors(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str) -> None:
    """Refuse tensors that are not those of the network that ``config.json`` describes; see :func:`read_weights`."""
    for key, tensor in expected.items():
        if key not in found:
            raise UserError(f"{path}: tensor {key} is missing; expected shape {list(tensor.shape)}")
        if found[key].shape != tensor.shape:
            raise UserError(
                f"{path}: tensor {key} has shape {list(found[key].shape)}, config.json asks for {list(tensor.shape)}"
            )
        if not bool(found[key].isfinite().all()):
            raise UserError(f"{path}: tensor {key} holds NaN or infinity")
    for key in found:
        if key not in expected:
            raise UserError(f"{path}: tensor {key} is not part of the {name} that config.json describes")


def export_frozen(folder: Path, destination: Path, half: bool) -> None:
    """Copy a frozen teacher that ckd trained, its weights rounded to float16 if ``half``; ckd reads both."""
    destination.mkdir(parents=True, exist_ok=True)
    tensors = load_file(folder / WEIGHTS)
    (destination / WEIGHTS).write_bytes(save({name: t.half() if half else t for name, t in tensors.items()}))
    (destination / CONFIG).write_bytes((folder / CONFIG).read_bytes())
