"""The training that makes a frozen UniSRec, written into artifacts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save

from ckd.stages.teachers.contract import EpochReport, TextVectors
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS
from ckd.stages.teachers.unisrec import AdaptSettings, PretrainSettings
from ckd.stages.teachers.unisrec.adapt import adapt
from ckd.stages.teachers.unisrec.checkpoint import (
    Config,
    catalogue_digest,
    check_fit,
    load_config,
    load_model,
    save_config,
    save_weights,
)
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.stages.teachers.unisrec.pretrain import Source, pretrain
from ckd.storage.artifact import Draft
from ckd.storage.corpus import Corpus
from ckd.storage.curve import write_curve
from ckd.storage.errors import UserError


def pretrain_into(
    draft: Draft,
    settings: PretrainSettings,
    sources: Sequence[Source],
    seed: int,
    device: torch.device,
    on_epoch: EpochReport,
) -> dict[str, Any]:
    """Pre-train on the source domains, add the frozen teacher to a draft, return facts about it."""
    model, curve = pretrain(settings, sources, seed, device, on_epoch)
    text = sources[0][1]
    config = Config(
        mode="pretrained",
        network=settings.network,
        text_dimensions=text.vectors.shape[1],
        text_encoder=text.encoder,
    )
    _add(draft, model, config)
    write_curve(draft, curve)
    return {"epochs": len(curve), "parameters": sum(tensor.numel() for tensor in model.parameters())}


def adapt_into(
    draft: Draft,
    pretrained: Path,
    settings: AdaptSettings,
    corpus: Corpus,
    text: TextVectors,
    seed: int,
    device: torch.device,
    on_epoch: EpochReport,
) -> dict[str, Any]:
    """Adapt the teacher in a folder to one domain, add the result to a draft, return facts about it.

    Raises:
        UserError: the teacher does not fit the domain, the text vectors or the mode.
    """
    config = load_config(pretrained)
    check_fit(pretrained, config, corpus, text.encoder, text.vectors.shape[1])
    if config.mode == "transductive" and settings.mode != "transductive":
        raise UserError(f"{pretrained}: this teacher has an item ID table; adapt it with adapt.mode: transductive")
    start = load_model(pretrained, config, corpus.n_items)
    model, curve = adapt(start, settings, corpus, text, seed, device, on_epoch)
    mode: Literal["inductive", "transductive"] = "inductive" if model.item_embedding is None else "transductive"
    items = catalogue_digest(corpus) if mode == "transductive" else None
    _add(draft, model, config.model_copy(update={"mode": mode, "items": items, "network": model.settings}))
    write_curve(draft, curve)
    best = max(curve, key=lambda row: row["ndcg@10"])
    return {
        "epochs": len(curve) - 1,
        "best_epoch": best["epoch"],
        "valid_ndcg@10": best["ndcg@10"],
        "parameters": sum(tensor.numel() for tensor in model.parameters()),
    }


def export(folder: Path, destination: Path, half: bool) -> None:
    """Copy a frozen teacher, its weights rounded to float16 if ``half``; ckd reads both."""
    destination.mkdir(parents=True, exist_ok=True)
    tensors = load_file(folder / WEIGHTS)
    weights = save({name: t.half() if half else t for name, t in tensors.items()})
    (destination / WEIGHTS).write_bytes(weights)
    save_config(load_config(folder), destination / CONFIG)


def _add(draft: Draft, model: UniSRec, config: Config) -> None:
    draft.add(WEIGHTS, lambda path: save_weights(model, path))
    draft.add(CONFIG, lambda path: save_config(config, path))
