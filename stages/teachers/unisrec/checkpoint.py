"""A frozen UniSRec on disk: ``config.json`` and ``model.safetensors``. Opening one runs no foreign code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ckd.stages import settings
from ckd.stages.teachers.contract import TextVectors
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS, catalogue_digest
from ckd.stages.teachers.unisrec import CHECKPOINT, ITEM_IDS, NetworkSettings
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.stages.teachers.unisrec.rows import open_pth
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError


class Config(settings.Settings):
    """What the weights do not say."""

    kind: Literal["unisrec"] = "unisrec"
    format: Literal[1] = 1
    mode: Literal["pretrained", "inductive", "transductive"]
    """transductive: the file holds an item ID table, so it fits one catalogue only."""
    network: NetworkSettings
    text_dimensions: int
    text_encoder: str | None
    """SHA-256 of the weights of the text encoder that the adaptor was trained on; None: not recorded, as in the files
    of the authors."""
    items: str | None = None
    """Digest of the catalogue's item ids in order of code (transductive only)."""


def save_weights(model: UniSRec, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the weights as safetensors."""
    # Not save_file: what it raises on a full disk is no OSError.
    path.write_bytes(save({name: tensor.detach().to("cpu", dtype) for name, tensor in model.state_dict().items()}))


def save_config(config: Config, path: Path) -> None:
    """Write the configuration as JSON."""
    path.write_text(json.dumps(config.model_dump(mode="json"), indent=1) + "\n")


def load_config(folder: Path) -> Config:
    """Read and check ``config.json``.

    Raises:
        UserError: it is missing or not the configuration of a UniSRec.
    """
    path = folder / CONFIG
    try:
        return Config.model_validate(json.loads(path.read_text()))
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no {CONFIG}: a frozen teacher is a folder with {CONFIG} and {WEIGHTS}"
        ) from None
    except (ValueError, ValidationError) as error:
        problem = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        place = ".".join(str(part) for part in problem["loc"])
        raise UserError(f"{path}: {place or 'not JSON'}: {problem['msg']}") from None


def load_model(folder: Path, config: Config, n_items: int | None) -> UniSRec:
    """Build the network of a folder and fill it, float32, in evaluation mode.

    Raises:
        UserError: the weights are missing, torn, or do not fit the configuration; names the first tensor that
            is missing, unknown, of another shape or not finite.
    """
    path = folder / WEIGHTS
    model = UniSRec(config.network, config.text_dimensions, n_items if config.mode == "transductive" else None)
    try:
        tensors = load_file(path)
    except (FileNotFoundError, SafetensorError) as error:
        raise UserError(f"{path} cannot be opened as safetensors: {error}") from None
    _check_tensors(path, tensors, model.state_dict())
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.eval()


def load_frozen(files: Mapping[str, Path], corpus: Corpus, text: TextVectors) -> tuple[Config, UniSRec]:
    """Return a frozen teacher of either form, float32, in evaluation mode, after checking that it fits a domain.

    Args:
        files: by role, as ``Settings.files`` names them.
        corpus: the domain.
        text: its text vectors.

    Raises:
        UserError: the files cannot be read, or do not fit.
    """
    if CHECKPOINT not in files:
        folder = files[CONFIG].parent
        config = load_config(folder)
        check_fit(folder, config, corpus, text.encoder, text.vectors.shape[1])
        return config, load_model(folder, config, corpus.n_items)
    model = open_pth(files[CHECKPOINT], files.get(ITEM_IDS), corpus, text)
    with_ids = model.item_embedding is not None
    config = Config(
        # Whether it was fine-tuned without an ID table makes no difference to how it is used.
        mode="transductive" if with_ids else "pretrained",
        network=model.settings,
        text_dimensions=text.vectors.shape[1],
        text_encoder=None,
        items=catalogue_digest(corpus) if with_ids else None,
    )
    return config, model


def check_fit(folder: Path, config: Config, corpus: Corpus, text_encoder: str, text_dimensions: int) -> None:
    """Refuse a teacher whose inputs are not the ones that it was trained on.

    Raises:
        UserError: text vectors of other width or of another encoder, or an item ID table of another catalogue.
    """
    encoder = config.text_encoder
    if encoder is not None and encoder != text_encoder:
        raise UserError(
            f"{folder}: this teacher reads text vectors of the encoder with SHA-256 {encoder[:12]}..., "
            f"text.encoder gives {text_encoder[:12]}...; set text.encoder to the one it was trained with"
        )
    if config.text_dimensions != text_dimensions:
        raise UserError(
            f"{folder}: this teacher reads text vectors of {config.text_dimensions} dimensions, text.encoder gives "
            f"{text_dimensions}; set text.encoder to the one it was trained with"
        )
    if config.mode == "transductive" and config.items != catalogue_digest(corpus):
        raise UserError(
            f"{folder}: this teacher has an ID table for another catalogue than the domain's {corpus.n_items} items; "
            "take a teacher without such a table, the pre-trained or an inductive one, and adapt that to this domain"
        )


def _check_tensors(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, tensor in expected.items():
        if name not in found:
            raise UserError(f"{path}: tensor {name} is missing; expected shape {list(tensor.shape)}")
        if found[name].shape != tensor.shape:
            raise UserError(
                f"{path}: tensor {name} has shape {list(found[name].shape)}, config.json asks for {list(tensor.shape)}"
            )
        if not bool(found[name].isfinite().all()):
            raise UserError(f"{path}: tensor {name} holds NaN or infinity")
    for name in found:
        if name not in expected:
            raise UserError(f"{path}: tensor {name} is not part of the UniSRec that config.json describes")
