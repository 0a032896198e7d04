"""The training that makes a frozen UniSRec, written into artifacts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ckd.stages.teachers.checkpoint import catalogue_digest, export_frozen
from ckd.stages.teachers.contract import DomainData, Job, TextVectors
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS
from ckd.stages.teachers.unisrec import CHECKPOINT, AdaptSettings, PretrainSettings
from ckd.stages.teachers.unisrec.adapt import adapt
from ckd.stages.teachers.unisrec.checkpoint import (
    Config,
    load_frozen,
    save_config,
    save_weights,
)
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.stages.teachers.unisrec.pretrain import pretrain
from ckd.storage.errors import UserError


def pretrain_into(job: Job, sources: Sequence[DomainData]) -> dict[str, Any]:
    """Pre-train on the source domains, add the frozen teacher to a draft, return facts about it."""
    settings: PretrainSettings = job.settings
    model, curve = pretrain(job, sources)
    text = _text(sources[0])
    config = Config(
        mode="pretrained",
        network=settings.network,
        text_dimensions=text.vectors.shape[1],
        text_encoder=text.encoder,
        text=text.way if text.way is None else dict(text.way),
    )
    _add(job, model, config)
    job.add_curve(curve)
    return {"epochs": len(curve), "parameters": sum(tensor.numel() for tensor in model.parameters())}


def adapt_into(job: Job, start: Mapping[str, Path], domain: DomainData) -> dict[str, Any]:
    """Adapt the teacher in some files to one domain, add the result to a draft, return facts about it.

    Raises:
        UserError: the teacher does not fit the domain, the text vectors or the mode.
    """
    settings: AdaptSettings = job.settings
    corpus, text = domain.corpus, _text(domain)
    config, pretrained = load_frozen(start, corpus, text)
    if config.mode == "transductive" and settings.mode != "transductive":
        place = start[CHECKPOINT] if CHECKPOINT in start else start[CONFIG].parent
        raise UserError(f"{place}: this teacher has an item ID table; adapt it with adapt.mode: transductive")
    model, curve = adapt(pretrained, job, corpus, text)
    mode: Literal["inductive", "transductive"] = "inductive" if model.item_embedding is None else "transductive"
    items = catalogue_digest(corpus) if mode == "transductive" else None
    way = config.text if text.way is None else dict(text.way)
    encoder = text.encoder or config.text_encoder
    changed = {"mode": mode, "items": items, "network": model.settings, "text_encoder": encoder, "text": way}
    _add(job, model, config.model_copy(update=changed))
    job.add_curve(curve)
    best = max(curve, key=lambda row: row["ndcg@10"])
    return {
        "epochs": len(curve) - 1,
        "best_epoch": best["epoch"],
        "valid_ndcg@10": best["ndcg@10"],
        "parameters": sum(tensor.numel() for tensor in model.parameters()),
    }


def _text(domain: DomainData) -> TextVectors:
    if domain.text is None:
        raise ValueError("a UniSRec is trained on item text vectors")
    return domain.text


def export(folder: Path, destination: Path, half: bool) -> None:
    """Copy a frozen UniSRec, its weights rounded to float16 if ``half``."""
    export_frozen(folder, destination, half)


def _add(job: Job, model: UniSRec, config: Config) -> None:
    job.add(WEIGHTS, lambda path: save_weights(model, path))
    job.add(CONFIG, lambda path: save_config(config, path))
