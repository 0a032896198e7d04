"""A frozen UniSRec on disk: what its configuration says, and which domains and text vectors it fits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ckd.stages import settings
from ckd.stages.teachers.checkpoint import catalogue_digest, read_config, read_weights, save_config, save_weights
from ckd.stages.teachers.contract import TextVectors
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS
from ckd.stages.teachers.unisrec import CHECKPOINT, ITEM_IDS, NetworkSettings
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.stages.teachers.unisrec.rows import open_pth
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError

__all__ = ["Config", "catalogue_digest", "check_fit", "load_config", "load_model", "save_config", "save_weights"]


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
    text: dict[str, Any] | None = None
    """How item texts became vectors, by name of the setting under ``text``; None: not recorded."""
    items: str | None = None
    """Digest of the catalogue's item ids in order of code (transductive only)."""


def load_config(folder: Path) -> Config:
    """Read and check ``config.json``.

    Raises:
        UserError: it is missing or not the configuration of a UniSRec.
    """
    return read_config(folder, Config)


def load_model(folder: Path, config: Config, n_items: int | None) -> UniSRec:
    """Build the network of a folder and fill it, float32, in evaluation mode.

    Raises:
        UserError: the weights are missing, torn, or do not fit the configuration.
    """
    model = UniSRec(config.network, config.text_dimensions, n_items if config.mode == "transductive" else None)
    read_weights(folder / WEIGHTS, model, "UniSRec")
    return model


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
        check_fit(folder, config, corpus, text)
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


def check_fit(folder: Path, config: Config, corpus: Corpus, text: TextVectors) -> None:
    """Refuse a teacher whose inputs are not the ones that it was trained on, as far as either is known.

    Raises:
        UserError: text vectors of other width, of another encoder or made in another way, or an item ID table of
            another catalogue.
    """
    if config.text_dimensions != text.vectors.shape[1]:
        raise UserError(
            f"{folder}: this teacher reads text vectors of {config.text_dimensions} dimensions, the domain's have "
            f"{text.vectors.shape[1]}; set text.encoder to the one it was trained with, or bring such vectors"
        )
    if config.text_encoder is not None and text.encoder is not None and config.text_encoder != text.encoder:
        raise UserError(
            f"{folder}: this teacher reads text vectors of the encoder with SHA-256 {config.text_encoder[:12]}..., "
            f"text.encoder gives {text.encoder[:12]}...; set text.encoder to the one it was trained with"
        )
    for name, trained in (config.text or {}).items():
        given = trained if text.way is None else text.way.get(name)
        if given != trained:
            raise UserError(
                f"{folder}: this teacher was trained on texts with text.{name} {_shown(trained)}, the configuration "
                f"has {_shown(given)}; set text.{name} to what it was trained with"
            )
    if config.mode == "transductive" and config.items != catalogue_digest(corpus):
        raise UserError(
            f"{folder}: this teacher has an ID table for another catalogue than the domain's {corpus.n_items} items; "
            "take a teacher without such a table, the pre-trained or an inductive one, and adapt that to this domain"
        )


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
