"""Trains one student: full softmax on the truth plus the teachers' losses, early stopping on validation."""

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ckd.stages.batching import TrainingWindows, at, flat_index, histories, length_buckets, padded, training_windows
from ckd.stages.distill.curriculum import served
from ckd.stages.distill.losses import cross_entropy
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.teaching import Teaching
from ckd.stages.distill.weighting import scaled_gate
from ckd.stages.evaluate.metrics import metrics
from ckd.stages.evaluate.ranking import Scorer, rank_targets
from ckd.stages.students.scores import FullScores
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError

Epoch = dict[str, float]
WATCHED = "ndcg@10"


@dataclass(frozen=True)
class Lesson:
    """What a student is taught beyond the truth.

    Attributes:
        teaching: the labels and their weights.
        hardness: float64 [n_users], d(u) in [0, 1].
    """

    teaching: Teaching
    hardness: npt.NDArray[np.float64]


def train(
    student: Any,
    corpus: Corpus,
    settings: DistillSettings,
    lesson: Lesson | None,
    seed: int,
    mask_history: bool = False,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> list[Epoch]:
    """Train a student in place, leave it with the weights of its best epoch, return the curve.

    One epoch is one pass over the sequences that the curriculum serves; without a lesson these are all sequences.
    Epochs of the curriculum's warm-up do not count towards patience, for they have not seen all sequences yet.

    Args:
        student: a :class:`ckd.stages.students.contract.SequenceStudent`, on its device.
        corpus: the domain.
        settings: losses, optimiser, patience.
        lesson: None trains on the truth alone.
        seed: of the batches.
        mask_history: whether validation masks the history.
        on_epoch: progress.

    Raises:
        UserError: no sequence is long enough to train on, or the loss is no longer finite.
    """
    draw = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(student.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    cut = training_windows(corpus, student.max_length)
    warmed_up = settings.curriculum.warmup if lesson is not None and settings.curriculum.pacing != "none" else 0
    curve: list[Epoch] = []
    best, best_epoch, best_state = -1.0, 0, deepcopy(student.state_dict())
    for epoch in range(1, settings.epochs + 1):
        started = time.perf_counter()
        rows = np.arange(len(cut.user))
        if lesson is not None:
            rows = served(lesson.hardness[cut.user], epoch, settings.curriculum)
        row = _train_epoch(student, corpus, cut, rows, settings, lesson, optimiser, draw)
        if not math.isfinite(row["loss"]):
            raise UserError(
                f"the training diverged: the loss of epoch {epoch} is {row['loss']}; "
                f"lower distill.learning_rate ({settings.learning_rate:g})"
            )
        ranks = rank_targets(scorer(student, corpus), corpus, "valid", mask_history)
        value = metrics(ranks, [10])[WATCHED]
        seconds = time.perf_counter() - started
        curve.append({"epoch": epoch, **row, WATCHED: value, "share": len(rows) / len(cut.user), "seconds": seconds})
        on_epoch(curve[-1])
        if value > best:
            best, best_epoch, best_state = value, epoch, deepcopy(student.state_dict())
        if epoch - max(best_epoch, warmed_up + 1) >= settings.patience:
            break
    student.load_state_dict(best_state)
    student.eval()
    return curve


def scorer(student: Any, corpus: Corpus) -> Scorer:
    """Return a scorer of the student as it is now."""
    student.eval()
    items = student.item_vectors().detach()

    @torch.inference_mode()
    def score(users: npt.NDArray[np.int32], position: npt.NDArray[np.int32]) -> Tensor:
        codes, ends = histories(corpus, users, position, student.max_length)
        scores: Tensor = at(student.encode(codes.to(items.device)), ends) @ items.T
        return scores

    return score


def _train_epoch(
    student: Any,
    corpus: Corpus,
    cut: TrainingWindows,
    rows: npt.NDArray[np.int64],
    settings: DistillSettings,
    lesson: Lesson | None,
    optimiser: torch.optim.Optimizer,
    draw: np.random.Generator,
) -> Epoch:
    student.train()
    device = student.item_vectors().device
    gate = None if lesson is None else _epoch_gate(lesson, corpus, cut, rows).to(device)
    sums = torch.zeros(3, dtype=torch.float64)
    for batch in length_buckets(cut.length[rows], settings.batch_size, draw):
        chosen = rows[batch]
        truth, taught, count = _step_losses(student, corpus, cut, chosen, settings, lesson, gate)
        loss = (truth.sum() + taught.sum()) / count
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        sums += torch.stack([truth.detach().sum(), taught.detach().sum(), torch.tensor(float(count))]).double().cpu()
    truth_mean, taught_mean = (sums[:2] / sums[2]).tolist()
    return {"loss": truth_mean + taught_mean, "truth_loss": truth_mean, "teacher_loss": taught_mean}


def _step_losses(
    student: Any,
    corpus: Corpus,
    cut: TrainingWindows,
    chosen: npt.NDArray[np.int64],
    settings: DistillSettings,
    lesson: Lesson | None,
    gate: Tensor | None,
) -> tuple[Tensor, Tensor, int]:
    """Return (1 - a) CE and a g sum_p w_p KD_p at the batch's real positions, [N] each, and N."""
    items = student.item_vectors()
    start, length = cut.start[chosen], cut.length[chosen]
    codes, real = padded(corpus.sequence, start, length)
    target = torch.from_numpy(corpus.sequence[flat_index(start + 1, length)].astype(np.int64)).to(items.device)
    states = student.encode(codes.to(items.device))[torch.from_numpy(real).to(items.device)]
    logits = states @ items.T
    scores = FullScores(logits)
    truth = cross_entropy(logits, scores.logsumexp, target)
    if lesson is None or gate is None:
        return truth, torch.zeros_like(truth), len(target)
    first = corpus.position_offsets[cut.user[chosen]] + cut.position[chosen] - 1
    place = torch.from_numpy(flat_index(first, length)).to(items.device)
    taught, labelled = lesson.teaching.losses(place, scores, target)
    alpha = settings.alpha * labelled
    return (1 - alpha) * truth, alpha * gate[place] * taught, len(target)


def _epoch_gate(lesson: Lesson, corpus: Corpus, cut: TrainingWindows, rows: npt.NDArray[np.int64]) -> Tensor:
    first = corpus.position_offsets[cut.user[rows]] + cut.position[rows] - 1
    serving = np.zeros(corpus.n_positions, bool)
    serving[flat_index(first, cut.length[rows])] = True
    return torch.from_numpy(scaled_gate(lesson.teaching.gate, serving & lesson.teaching.labelled)).float()
