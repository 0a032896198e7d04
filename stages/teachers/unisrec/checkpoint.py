"""A frozen UniSRec on disk: what its configuration says, and which domains and text vectors it fits."""

from pathlib import Path
from typing import Literal

from ckd.stages import settings
from ckd.stages.teachers.checkpoint import catalogue_digest, read_config, read_weights, save_config, save_weights
from ckd.stages.teachers.frozen import WEIGHTS
from ckd.stages.teachers.unisrec import NetworkSettings
from ckd.stages.teachers.unisrec.network import UniSRec
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
    text_encoder: str
    """SHA-256 of the weights of the text encoder that the adaptor was trained on."""
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


def check_fit(folder: Path, config: Config, corpus: Corpus, text_encoder: str, text_dimensions: int) -> None:
    """Refuse a teacher whose inputs are not the ones that it was trained on.

    Raises:
        UserError: other text encoder, or an item ID table of another catalogue.
    """
    if config.text_encoder != text_encoder or config.text_dimensions != text_dimensions:
        raise UserError(
            f"{folder}: this teacher reads text vectors of the encoder with SHA-256 {config.text_encoder[:12]}..., "
            f"text.encoder gives {text_encoder[:12]}...; set text.encoder to the one it was trained with"
        )
    if config.mode == "transductive" and config.items != catalogue_digest(corpus):
        raise UserError(
            f"{folder}: this teacher has an ID table for another catalogue than the domain's {corpus.n_items} items; "
            "take a teacher without such a table, the pre-trained or an inductive one, and adapt that to this domain"
        )
