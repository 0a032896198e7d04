"""The training that makes a frozen Recformer, written into artifacts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from ckd.stages.teachers.checkpoint import catalogue_digest, export_frozen
from ckd.stages.teachers.contract import DomainData, Job
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS
from ckd.stages.teachers.recformer.adapt import adapt
from ckd.stages.teachers.recformer.checkpoint import open_frozen, save_weights
from ckd.stages.teachers.recformer.config import RecformerConfig, save_config
from ckd.stages.teachers.recformer.files import TOKENIZER
from ckd.stages.teachers.recformer.network import Recformer
from ckd.stages.teachers.recformer.pretrain import pretrain
from ckd.stages.teachers.state import outcome


def pretrain_into(job: Job, sources: Sequence[DomainData]) -> dict[str, Any]:
    """Pre-train on the source domains, add the frozen teacher to a draft, return facts about it."""
    model, tokenizer, curve = pretrain(job, sources)
    _add(job, model, model.config, tokenizer, None)
    job.add_curve(curve)
    return outcome(model, curve, "accuracy", "accuracy")


def adapt_into(job: Job, start: Mapping[str, Path], domain: DomainData) -> dict[str, Any]:
    """Adapt the teacher in some files to one domain, add the result to a draft, return facts about it.

    Raises:
        UserError: the files hold no Recformer, or there is nothing to train on.
    """
    frozen = open_frozen(start)
    adapted, curve = adapt(frozen, job, domain.corpus)
    model = adapted.longformer
    config = model.config.model_copy(update={"items": catalogue_digest(domain.corpus)})
    _add(job, model, config, frozen.tokenizer, adapted.item_embedding.weight)
    job.add_curve(curve)
    return outcome(model, curve, "ndcg@10", "valid_ndcg@10")


def export(folder: Path, destination: Path, half: bool) -> None:
    """Copy a frozen teacher, its weights rounded to float16 if ``half``; ckd reads both."""
    export_frozen(folder, destination, half)
    (destination / TOKENIZER).write_bytes((folder / TOKENIZER).read_bytes())


def _add(job: Job, model: Recformer, config: RecformerConfig, tokenizer: Tokenizer, table: Tensor | None) -> None:
    job.add(WEIGHTS, lambda path: save_weights(model, table, path))
    job.add(CONFIG, lambda path: save_config(config, path))
    job.add(TOKENIZER, lambda path: _save_tokenizer(tokenizer, path))


def _save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    path.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
