"""Which files a Recformer's checkpoint is made of. Imports nothing heavy."""

from collections.abc import Mapping
from pathlib import Path

from ckd.stages.teachers.frozen import CONFIG, WEIGHTS, named_file, refuse_other_kind
from ckd.storage.errors import UserError

TOKENIZER = "tokenizer.json"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
TOKENIZER_FOLDER = "tokenizer"
ITEM_IDS = "item_ids.json"


def checkpoint_files(named: Mapping[str, str], domain: str, where: str) -> dict[str, Path]:
    """Return the files of a checkpoint by role: config.json, the weights, the tokenizer, the item ids if there are any.

    Args:
        named: the paths that the settings name, by key: ``checkpoint`` (a folder or a weights file) and, as far as
            given, ``config``, ``tokenizer`` and ``item_ids``; ``{domain}`` may stand in each.
        domain: what it stands for.
        where: the configuration key of the teacher, for messages.

    Raises:
        UserError: a file is missing.
    """
    checkpoint = Path(named["checkpoint"].replace("{domain}", domain))
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    if checkpoint.is_dir() and not (checkpoint / WEIGHTS).is_file():
        raise UserError(
            f"{where}.checkpoint: {checkpoint} holds no {WEIGHTS}; name the weights file itself if it is the authors'"
        )
    weights = str(checkpoint / WEIGHTS) if checkpoint.is_dir() else named["checkpoint"]
    found = named_file(weights, domain, f"{where}.checkpoint")
    if "config" not in named and not (folder / CONFIG).is_file():
        raise UserError(
            f"{where}.checkpoint: there is no {CONFIG} beside {found}; a Recformer's weights need that of its "
            f"RecformerConfig: put it there, or name it under {where}.config"
        )
    config = named_file(named.get("config", str(folder / CONFIG)), domain, f"{where}.config")
    refuse_other_kind(config, "recformer")
    files = {
        WEIGHTS: found,
        CONFIG: config,
        **tokenizer_files(Path(named.get("tokenizer", str(folder)).replace("{domain}", domain)), f"{where}.tokenizer"),
    }
    if "item_ids" in named:
        files[ITEM_IDS] = named_file(named["item_ids"], domain, f"{where}.item_ids")
    return files


def tokenizer_files(place: Path, key: str) -> dict[str, Path]:
    """Return the files of a tokenizer: a file, or what is in a folder or in its folder ``tokenizer``.

    Raises:
        UserError: there is none.
    """
    if place.is_file():
        return {TOKENIZER: place}
    for folder in (place, place / TOKENIZER_FOLDER):
        if (folder / TOKENIZER).is_file():
            return {TOKENIZER: folder / TOKENIZER}
        if (folder / VOCABULARY).is_file() and (folder / MERGES).is_file():
            return {name: folder / name for name in (VOCABULARY, MERGES)}
    raise UserError(
        f"{key}: {place} holds neither {TOKENIZER} nor {VOCABULARY} and {MERGES}, nor does a folder {TOKENIZER_FOLDER} "
        "in it; name the folder of the tokenizer that the weights were trained with"
    )
