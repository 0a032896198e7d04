"""Adaptation of a pre-trained UniSRec to one domain (arXiv 2206.05941, section 2.4): full softmax over its catalogue.

Only the training split is trained on; the epoch is chosen by NDCG@10 on the validation targets.
"""

import time
from copy import deepcopy

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ckd.stages.batching import (
    TrainingWindows,
    at,
    flat_index,
    histories,
    length_buckets,
    padded,
    training_windows,
)
from ckd.stages.evaluate.metrics import metrics
from ckd.stages.evaluate.ranking import Scorer, rank_targets
from ckd.stages.teachers.contract import EpochReport, TextVectors
from ckd.stages.teachers.unisrec import AdaptSettings
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.storage.corpus import Corpus

Epoch = dict[str, float]


def adapt(
    pretrained: UniSRec,
    settings: AdaptSettings,
    corpus: Corpus,
    text: TextVectors,
    seed: int,
    device: torch.device,
    on_epoch: EpochReport = lambda _: None,
) -> tuple[UniSRec, list[Epoch]]:
    """Return the adapted network of the best epoch and one row of the curve per epoch.

    Epoch 0 of the curve is the network before its first step. In transductive mode the item ID table starts from
    N(0, 0.02), as the authors' does. The softmax runs over the catalogue; the authors' has one more column, the
    padding item.

    Raises:
        UserError: no sequence is long enough to train on.
    """
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    model = _start(pretrained, settings, corpus).to(device)
    vectors = torch.from_numpy(text.vectors).to(device)
    trained = [tensor for tensor in model.parameters() if tensor.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=settings.learning_rate)
    cut = training_windows(corpus, model.settings.max_length)
    curve: list[Epoch] = []
    best, best_state = -1.0, model.state_dict()
    for epoch in range(settings.epochs + 1):
        started = time.perf_counter()
        loss = _train_epoch(model, vectors, corpus, cut, settings, optimiser, draw) if epoch else float("nan")
        ndcg = metrics(rank_targets(scorer(model, vectors, corpus), corpus, "valid"), [10])["ndcg@10"]
        curve.append({"epoch": epoch, "loss": loss, "ndcg@10": ndcg, "seconds": time.perf_counter() - started})
        on_epoch(curve[-1])
        if ndcg > best:
            best, best_state, best_epoch = ndcg, deepcopy(model.state_dict()), epoch
        elif epoch - best_epoch >= settings.patience:
            break
    model.load_state_dict(best_state)
    return model.eval(), curve


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


def _train_epoch(
    model: UniSRec,
    vectors: torch.Tensor,
    corpus: Corpus,
    cut: TrainingWindows,
    settings: AdaptSettings,
    optimiser: torch.optim.Optimizer,
    draw: np.random.Generator,
) -> float:
    model.train()
    losses = []
    for rows in length_buckets(cut.length, settings.batch_size, draw):
        start, length = cut.start[rows], cut.length[rows]
        codes, real = padded(corpus.sequence, start, length)
        target = torch.from_numpy(corpus.sequence[flat_index(start + 1, length)].astype(np.int64))
        table = model.item_table(vectors)
        states = model.encode(table[codes.to(vectors.device)])[torch.from_numpy(real).to(vectors.device)]
        logits = F.normalize(states, dim=-1) @ F.normalize(table, dim=-1).T / model.settings.temperature
        loss = F.cross_entropy(logits, target.to(vectors.device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())
