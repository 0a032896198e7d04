"""Adaptation of a pre-trained UniSRec to one domain (arXiv 2206.05941, section 2.4): full softmax over its catalogue.

Only the training split is trained on; the epoch is chosen by NDCG@10 on the validation targets.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ckd.stages.batching import (
    TrainingWindows,
    at,
    encoded,
    flat_index,
    histories,
    padded,
    random_batches,
    training_windows,
)
from ckd.stages.evaluate.ranking import Scorer, validation_ndcg
from ckd.stages.full_softmax import full_softmax_loss
from ckd.stages.teachers import parallel
from ckd.stages.teachers.contract import Job, TextVectors
from ckd.stages.teachers.loop import Epoch, run_epochs
from ckd.stages.teachers.unisrec import AdaptSettings
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.storage.corpus import Corpus


def adapt(pretrained: UniSRec, job: Job, corpus: Corpus, text: TextVectors) -> tuple[UniSRec, list[Epoch]]:
    """Return the adapted network of the best epoch and one row of the curve per epoch.

    Epoch 0 of the curve is the network before its first step. In transductive mode the item ID table starts from
    N(0, 0.02), as the authors' does. The softmax runs over the catalogue; the authors' has one more column, the
    padding item.

    Raises:
        UserError: no sequence is long enough to train on.
    """
    settings: AdaptSettings = job.settings
    torch.manual_seed(settings.seed)
    model = _start(pretrained, settings, corpus).to(job.device)
    vectors = torch.from_numpy(text.vectors).to(job.device)
    trained = [tensor for tensor in model.parameters() if tensor.requires_grad]
    cut = training_windows(corpus, model.settings.max_length)
    curve = run_epochs(
        job,
        model,
        torch.optim.Adam(trained, lr=settings.learning_rate),
        lambda _, draw: random_batches(len(cut.length), settings.batch_size, draw),
        lambda rows, _: _loss(model, vectors, corpus, cut, rows),
        seed=settings.seed,
        epochs=settings.epochs,
        validate=lambda: {"ndcg@10": validation_ndcg(scorer(model, vectors, corpus), corpus)},
        patience=settings.patience,
        first=0,
        precision=settings.precision,
    )
    return model, curve


def scorer(model: UniSRec, vectors: torch.Tensor, corpus: Corpus) -> Scorer:
    """Return a scorer of the network as it is now, for validation."""
    model.eval()
    with torch.inference_mode():
        table = model.item_table(vectors)
        items = F.normalize(table, dim=-1)

    @torch.inference_mode()
    def score(users: npt.NDArray[np.int32], position: npt.NDArray[np.int32]) -> torch.Tensor:
        codes, ends = histories(corpus, users, position, model.settings.max_length)
        states = at(model.encode(table[codes.to(table.device)]), ends)
        return F.normalize(states, dim=-1) @ items.T

    return score


def _start(pretrained: UniSRec, settings: AdaptSettings, corpus: Corpus) -> UniSRec:
    text_dimensions = pretrained.moe_adaptor.w_gate.shape[0]
    n_items = corpus.n_items if settings.mode == "transductive" else None
    network = pretrained.settings
    if settings.dropout is not None:
        changed = {"hidden_dropout": settings.dropout, "attention_dropout": settings.dropout}
        network = network.model_copy(update=changed)
    model = UniSRec(network, text_dimensions, n_items)
    model.load_state_dict(pretrained.state_dict(), strict=n_items is None)
    if settings.freeze_encoder:
        model.position_embedding.requires_grad_(False)
        model.trm_encoder.requires_grad_(False)
    return model


def _loss(
    model: UniSRec, vectors: torch.Tensor, corpus: Corpus, cut: TrainingWindows, rows: npt.NDArray[np.int64]
) -> torch.Tensor:
    start, length = cut.start[rows], cut.length[rows]
    codes = padded(corpus.sequence, start, length)
    target = torch.from_numpy(corpus.sequence[flat_index(start + 1, length)].astype(np.int64))
    table = model.item_table(vectors)
    states = encoded(lambda codes: model.encode(table[codes]), codes.to(vectors.device), length)
    unit = F.normalize(states, dim=-1) / model.settings.temperature
    loss = full_softmax_loss(unit, F.normalize(table, dim=-1), target.to(vectors.device))
    return loss * parallel.weight(len(target))
