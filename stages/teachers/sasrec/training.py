"""The training that makes a frozen SASRec, with full softmax, as makes it strong (arXiv 2309.07602).

Only the training split is trained on; the epoch is chosen by NDCG@10 on the validation targets.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ckd.stages.batching import TrainingWindows, encoded, flat_index, padded, random_batches, training_windows
from ckd.stages.evaluate.ranking import Scorer, validation_ndcg
from ckd.stages.full_softmax import full_softmax_loss
from ckd.stages.students.sasrec.network import SASRec
from ckd.stages.teachers import parallel
from ckd.stages.teachers.causal import one_position
from ckd.stages.teachers.checkpoint import catalogue_digest, export_frozen, save_config, save_weights
from ckd.stages.teachers.contract import DomainData, Job
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS
from ckd.stages.teachers.loop import Epoch, run_epochs
from ckd.stages.teachers.sasrec import TrainSettings
from ckd.stages.teachers.sasrec.teacher import Config
from ckd.stages.teachers.state import outcome
from ckd.storage.corpus import Corpus


def adapt_into(job: Job, start: Mapping[str, Path], domain: DomainData) -> dict[str, Any]:
    """Train on one domain from nothing, add the frozen teacher to a draft, return facts about it.

    Raises:
        UserError: no sequence is long enough to train on, or the loss is no longer finite.
    """
    model, curve = train(job, domain.corpus)
    config = Config(network=job.settings.network, items=catalogue_digest(domain.corpus))
    job.add(WEIGHTS, lambda path: save_weights(model, path))
    job.add(CONFIG, lambda path: save_config(config, path))
    job.add_curve(curve)
    return outcome(model, curve, "ndcg@10", "valid_ndcg@10")


def train(job: Job, corpus: Corpus) -> tuple[SASRec, list[Epoch]]:
    """Return the network of the best epoch and one row of the curve per epoch.

    Raises:
        UserError: no sequence is long enough to train on, or the loss is no longer finite.
    """
    settings: TrainSettings = job.settings
    torch.manual_seed(settings.seed)
    model = SASRec(settings.network, corpus.n_items).to(job.device)
    cut = training_windows(corpus, model.max_length)
    curve = run_epochs(
        job,
        model,
        torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay),
        lambda _, draw: random_batches(len(cut.length), settings.batch_size, draw),
        lambda rows, _: _loss(model, corpus, cut, rows),
        seed=settings.seed,
        epochs=settings.epochs,
        validate=lambda: {"ndcg@10": validation_ndcg(_scorer(model, corpus), corpus)},
        patience=settings.patience,
        precision=settings.precision,
    )
    return model, curve


def export(folder: Path, destination: Path, half: bool) -> None:
    """Copy a frozen SASRec, its weights rounded to float16 if ``half``."""
    export_frozen(folder, destination, half)


def _loss(model: SASRec, corpus: Corpus, cut: TrainingWindows, rows: npt.NDArray[np.int64]) -> torch.Tensor:
    start, length = cut.start[rows], cut.length[rows]
    codes = padded(corpus.sequence, start, length)
    target = torch.from_numpy(corpus.sequence[flat_index(start + 1, length)].astype(np.int64))
    items = model.item_vectors()
    states = encoded(model.encode, codes.to(items.device), length)
    return full_softmax_loss(states, items, target.to(items.device)) * parallel.weight(len(target))


def _scorer(model: SASRec, corpus: Corpus) -> Scorer:
    model.eval()
    items = model.item_vectors().detach()

    def score(users: npt.NDArray[np.int32], position: npt.NDArray[np.int32]) -> torch.Tensor:
        return one_position(model.encode, corpus, users, position, model.max_length, items.device) @ items.T

    return score
