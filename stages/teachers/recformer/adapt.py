"""Two-stage adaptation of a Recformer to one domain (arXiv 2305.13731, section 2.5).

First stage: before each epoch all items are encoded into a table that stays fixed while the network is trained towards
it. Second stage: from the best epoch of the first, with its table, which now stays. The table is part of what is kept:
the authors score with it, not with items encoded anew.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ckd.stages.batching import random_batches
from ckd.stages.evaluate.ranking import Scorer, validation_ndcg
from ckd.stages.teachers.contract import Job
from ckd.stages.teachers.loop import Phase, run_epochs
from ckd.stages.teachers.recformer import AdaptSettings
from ckd.stages.teachers.recformer.checkpoint import Frozen
from ckd.stages.teachers.recformer.encode import encode, encode_batch, encode_items
from ckd.stages.teachers.recformer.network import Recformer, cosine_scores
from ckd.stages.teachers.recformer.tokens import (
    Inputs,
    ItemTokens,
    assemble,
    catalogue,
    single_items,
    token_counts,
    tokenise,
)
from ckd.stages.teachers.state import Epoch
from ckd.storage.corpus import HELD_OUT, Corpus
from ckd.storage.errors import UserError

Int64s = npt.NDArray[np.int64]


class Adapted(nn.Module):
    """A network with its item table, named as in the authors' fine-tuned files."""

    def __init__(self, model: Recformer, n_items: int) -> None:
        super().__init__()
        self.longformer = model
        self.item_embedding = nn.Embedding(n_items, model.config.hidden_size)
        self.item_embedding.requires_grad_(False)


def adapt(frozen: Frozen, job: Job, corpus: Corpus) -> tuple[Adapted, list[Epoch]]:
    """Return the adapted network with its item table and one row of the curve per epoch, of both stages.

    An epoch has one row per user: the history before a random item of the training split, which may be empty, and that
    item.
    Epoch 0 of the curve is the network before its first step.

    Raises:
        UserError: there is nothing to train on.
    """
    settings: AdaptSettings = job.settings
    torch.manual_seed(settings.seed)
    lesson = Lesson(_start(frozen, settings, corpus).to(job.device), frozen, job, corpus)
    model = lesson.model
    optimiser = torch.optim.AdamW(
        [tensor for tensor in model.parameters() if tensor.requires_grad], lr=settings.learning_rate, weight_decay=0.0
    )
    total = lesson.steps * settings.epochs
    lesson.encode_table()
    curve = run_epochs(
        job,
        model,
        optimiser,
        lesson.first_stage,
        lambda rows, _: lesson.loss(rows),
        seed=settings.seed,
        epochs=settings.epochs,
        validate=lambda: {"ndcg@10": validation_ndcg(lesson.scorer(), corpus)},
        patience=settings.patience,
        first=0,
        schedule=torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(step, settings.warmup, total)),
        precision=settings.precision,
        second=Phase(lesson.second_stage, settings.second_epochs, settings.second_patience),
    )
    return model, curve


def item_loss(histories: Tensor, items: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of each history's item against all items, [B, d], [n, d], int64 [B]."""
    return F.cross_entropy(cosine_scores(histories, items, temperature), target)


def rate(step: int, warmup: int, total: int) -> float:
    """Return the factor of the learning rate: rising over the warm-up, then 1 - step / total, which is not re-based."""
    return step / warmup if step < warmup else max(0.0, 1 - step / total)


def _start(frozen: Frozen, settings: AdaptSettings, corpus: Corpus) -> Adapted:
    config = frozen.model.config
    if settings.dropout is not None:
        changed = {"hidden_dropout_prob": settings.dropout, "attention_probs_dropout_prob": settings.dropout}
        config = config.model_copy(update=changed)
    model = Recformer(config)
    model.load_state_dict(frozen.model.state_dict())
    return Adapted(model, corpus.n_items)


class Lesson:
    """The rows of a domain's training split, and what an epoch does with them."""

    def __init__(self, model: Adapted, frozen: Frozen, job: Job, corpus: Corpus) -> None:
        self.model = model
        self._job, self._corpus, self._device = job, corpus, job.device
        self._limits = model.longformer.config.limits
        self._tokens: ItemTokens = tokenise(list(catalogue(corpus)), frozen.tokenizer, self._limits)
        self._users = np.flatnonzero(corpus.lengths > HELD_OUT)
        self._batch_size = job.settings.batch_size
        self._contrast = False
        if not len(self._users):
            raise UserError(f"nothing to train on: no user of corpus {corpus.key[:16]} has a training item")

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return -(-len(self._users) // self._batch_size)

    def encode_table(self) -> None:
        """Encode all items with the network as it is now."""
        self.model.eval()
        table = encode_items(self.model.longformer, self._tokens, self._limits, self._device)
        self.model.item_embedding.weight.data.copy_(table)
        self.model.train()

    def first_stage(self, epoch: int, draw: np.random.Generator) -> list[Int64s]:
        """Return the rows of an epoch of the first stage, whose table is encoded anew; see :meth:`batches`."""
        self._contrast = epoch <= self._job.settings.contrast_epochs
        self.encode_table()
        return self.batches(draw)

    def second_stage(self, _: int, draw: np.random.Generator) -> list[Int64s]:
        """Return the rows of an epoch of the second stage, whose table stays; see :meth:`batches`."""
        self._contrast = False
        return self.batches(draw)

    def batches(self, draw: np.random.Generator) -> list[Int64s]:
        """Return the rows of an epoch in batches, int64 [B, 2]: end of the history in the corpus, and its items."""
        trained = self._corpus.lengths[self._users] - HELD_OUT
        items = draw.integers(trained)
        rows = np.stack([self._corpus.offsets[self._users] + items, items], 1)
        return [rows[batch] for batch in random_batches(len(rows), self._batch_size, draw)]

    def loss(self, rows: Int64s) -> Tensor:
        """Return the cross-entropy of the items that follow.

        Over the whole catalogue, whose table is a constant, or, in epochs of contrast, over the items of the batch,
        which are encoded with it.
        """
        target = self._corpus.sequence[rows[:, 0]].astype(np.int64)
        network = self.model.longformer
        encoded = encode_batch(network, self._inputs(rows[:, 0], rows[:, 1]), self._device)
        if self._contrast:
            own, place = np.unique(target, return_inverse=True)
            items = network(single_items(self._tokens, own, self._limits).to(self._device))
        else:
            items, place = self.model.item_embedding.weight, target
        return item_loss(encoded, items, torch.from_numpy(place).to(self._device), network.config.temp)

    def scorer(self) -> Scorer:
        """Return a scorer of the network with its table as they are now, for validation."""
        if self._contrast:
            self.encode_table()  # the items have been trained since
        self.model.eval()

        @torch.inference_mode()
        def score(users: npt.NDArray[np.int32], position: npt.NDArray[np.int32]) -> Tensor:
            end, shown = self._corpus.offsets[users] + position, position.astype(np.int64)
            length = token_counts(self._tokens, self._corpus.sequence, end, shown, self._limits)
            encoded = encode(
                self.model.longformer, length, lambda rows: self._inputs(end[rows], shown[rows]), self._device
            )
            return cosine_scores(encoded, self.model.item_embedding.weight, self.model.longformer.config.temp)

        return score

    def _inputs(self, end: Int64s, items: Int64s) -> Inputs:
        return assemble(self._tokens, self._corpus.sequence, end, items, self._limits)
