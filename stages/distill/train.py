"""Trains one student: the truth plus the teachers' losses, early stopping on validation."""

import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ckd.stages.batching import TrainingWindows, random_batches, training_windows
from ckd.stages.distill.curriculum import served
from ckd.stages.distill.fused import fused_losses
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.teaching import Teaching
from ckd.stages.distill.weighting import scaled_gate
from ckd.stages.evaluate.ranking import validation_ndcg
from ckd.stages.students.contract import Domain, Step
from ckd.stages.students.scores import DotScores
from ckd.stages.students.settings import StudentSettings
from ckd.storage.errors import UserError

Epoch = dict[str, float]
WATCHED = "ndcg@10"
_AHEAD = 4
"""Steps before its own in which the labels of a batch are read, where they are on the disk."""


@dataclass(frozen=True)
class Lesson:
    """What a student is taught of one domain beyond the truth.

    Attributes:
        teaching: the labels and their weights.
        hardness: float64 [n_users], d(u) in [0, 1].
    """

    teaching: Teaching
    hardness: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Course:
    """One domain of the training.

    Attributes:
        domain: the student's.
        windows: the training part of each sequence.
        lesson: None trains on the truth alone.
    """

    domain: Domain
    windows: TrainingWindows
    lesson: Lesson | None

    def served(self, epoch: int, settings: DistillSettings) -> npt.NDArray[np.int64]:
        """Return the rows of ``windows`` that an epoch is made of."""
        if self.lesson is None:
            return np.arange(len(self.windows.user))
        return served(self.lesson.hardness[self.windows.user], epoch, settings.curriculum)

    def expect(self, rows: npt.NDArray[np.int64]) -> None:
        """Have the labels of some rows of ``windows``, where they are on the disk, read before they are needed."""
        if self.lesson is not None and self.lesson.teaching.on_disk:
            self.lesson.teaching.expect(self.windows.take(rows).places(self.domain.corpus))


def train(
    student: Any,
    domains: Sequence[Domain],
    lessons: Sequence[Lesson | None],
    options: StudentSettings,
    settings: DistillSettings,
    seed: int,
    mask_history: bool = False,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> list[Epoch]:
    """Train a student in place, leave it with the weights of its best epoch, return the curve.

    One epoch is one pass over the sequences that the curriculum serves; without a lesson these are all sequences. A
    batch is of one domain; those of several domains come in random order. Epochs of the curriculum's warm-up do not
    count towards patience, for they have not seen all sequences yet.

    Args:
        student: a :class:`ckd.stages.students.contract.Student`, on its device.
        domains: of the student. The epoch is chosen by the mean over them.
        lessons: what it is taught of each domain; None is the truth alone.
        options: of the student: the optimiser's.
        settings: losses, patience.
        seed: of the batches.
        mask_history: whether validation masks the history.
        on_epoch: progress.

    Raises:
        UserError: no sequence is long enough to train on, or the loss is no longer finite.
    """
    draw = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(student.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    courses = [
        Course(domain, training_windows(domain.corpus, student.max_length), lesson)
        for domain, lesson in zip(domains, lessons, strict=True)
    ]
    taught = any(lesson is not None for lesson in lessons)
    warmed_up = settings.curriculum.warmup if taught and settings.curriculum.pacing != "none" else 0
    kept = _RunningMean(student, settings.average)
    curve: list[Epoch] = []
    best, best_epoch, best_state = -1.0, 0, deepcopy(student.state_dict())
    for epoch in range(1, settings.epochs + 1):
        started = time.perf_counter()
        rows = [course.served(epoch, settings) for course in courses]
        row = _train_epoch(student, courses, rows, settings, optimiser, draw, kept.follow)
        if not math.isfinite(row["loss"]):
            raise UserError(
                f"the training diverged: the loss of epoch {epoch} is {row['loss']}; "
                f"lower the student's learning_rate ({options.learning_rate:g})"
            )
        value = _validation(kept.network, domains, mask_history)
        share = sum(map(len, rows)) / sum(len(course.windows.user) for course in courses)
        seconds = time.perf_counter() - started
        curve.append({"epoch": epoch, **row, WATCHED: value, "share": share, "seconds": seconds})
        on_epoch(curve[-1])
        if value > best:
            best, best_epoch, best_state = value, epoch, deepcopy(kept.network.state_dict())
        if epoch - max(best_epoch, warmed_up + 1) >= settings.patience:
            break
    student.load_state_dict(best_state)
    student.eval()
    return curve


class _RunningMean:
    """The weights that are validated and kept: the student's own, or their exponential mean over the steps.

    The mean of the last weights generalises better than the last ones (Polyak averaging; Izmailov et al. 2018,
    arXiv 1803.05407) and costs nothing at serving.
    """

    def __init__(self, student: Any, decay: float) -> None:
        self._student = student
        self._mean = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None

    @property
    def network(self) -> Any:
        return self._student if self._mean is None else self._mean.module

    def follow(self) -> None:
        if self._mean is not None:
            self._mean.update_parameters(self._student)


def _validation(student: Any, domains: Sequence[Domain], mask_history: bool) -> float:
    values = [validation_ndcg(student.scorer(domain), domain.corpus, mask_history) for domain in domains]
    return sum(values) / len(values)


def _train_epoch(
    student: Any,
    courses: Sequence[Course],
    rows: Sequence[npt.NDArray[np.int64]],
    settings: DistillSettings,
    optimiser: torch.optim.Optimizer,
    draw: np.random.Generator,
    after_step: Callable[[], None],
) -> Epoch:
    student.train()
    gates = [_epoch_gate(course, chosen) for course, chosen in zip(courses, rows, strict=True)]
    sums = torch.zeros(3, dtype=torch.float64)
    batches = _batches(rows, settings.batch_size, draw)
    for number, (place, batch) in enumerate(batches):
        course, gate = courses[place], gates[place]
        for later, its_rows in batches[number + _AHEAD if number else 0 : number + _AHEAD + 1]:
            courses[later].expect(its_rows)
        step = student.step(course.domain, course.windows.take(batch), draw)
        truth, taught, count = step_losses(step, course.lesson, gate, settings.alpha)
        loss = (truth + taught) / count
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        after_step()
        sums += torch.stack([truth.detach(), taught.detach(), count.detach()]).double().cpu()
    truth_mean, taught_mean = (sums[:2] / sums[2]).tolist()
    return {"loss": truth_mean + taught_mean, "truth_loss": truth_mean, "teacher_loss": taught_mean}


def _batches(
    rows: Sequence[npt.NDArray[np.int64]], batch_size: int, draw: np.random.Generator
) -> list[tuple[int, npt.NDArray[np.int64]]]:
    """Return the batches of an epoch in order: the place of a course, and some of the rows that it serves."""
    batches = [
        (place, chosen[batch])
        for place, chosen in enumerate(rows)
        for batch in random_batches(len(chosen), batch_size, draw)
    ]
    if len(rows) == 1:
        return batches
    return [batches[index] for index in draw.permutation(len(batches))]


def step_losses(step: Step, lesson: Lesson | None, gate: Tensor | None, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the summed (1 - a) CE and a g sum_p w_p KD_p of a batch, and what they are to be divided by.

    Where teachers are heard at a share of the positions only, the second is an estimate whose mean over draws it is.

    Args:
        step: the student's scores.
        lesson: None is the truth alone.
        gate: float [n_positions] of the corpus, g at each position; None with no lesson.
        alpha: a; zero where no teacher has a label.
    """
    if isinstance(step.scores, DotScores) and (lesson is None or lesson.teaching.in_closed_form):
        total, taught, count = _fused_losses(step, step.scores, lesson, gate, alpha)
    else:
        total, taught, count = _composed_losses(step, lesson, gate, alpha)
    if step.own is not None:
        counted = torch.ones_like(step.own) if step.own_weight is None else step.own_weight
        total, count = total + (counted * step.own).sum(), count + counted.sum()
    return total, taught, count


def _fused_losses(
    step: Step, scores: DotScores, lesson: Lesson | None, gate: Tensor | None, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same as :func:`_composed_losses` in less time; the gradient of both sums is that of the first."""
    states, target = scores.states, step.target
    weight = truth_weight = torch.ones_like(states[:, 0]) if step.weight is None else step.weight
    distinct, voices, temperature, heard = torch.unique(target), [], 1.0, None
    if lesson is not None and gate is not None:
        teaching, temperature = lesson.teaching, lesson.teaching.temperature
        share, place = alpha * teaching.labelled_at(step.place), step.place
        truth_weight, taught_weight = weight * (1 - share), weight * share * gate[place]
        if (sample := teaching.sample(place)) is not None:
            # The losses are sums over positions, so these may come first.
            order, heard = _first(sample.rows, len(target)), len(sample.rows)
            states, target, truth_weight = (values.index_select(0, order) for values in (states, target, truth_weight))
            place, taught_weight = place[sample.rows], sample.scale * taught_weight[sample.rows]
        voices = [voice.weighed(taught_weight) for voice in teaching.voices(place, distinct)]
    losses = fused_losses(states, scores.items, target, distinct, truth_weight, voices, temperature, heard=heard)
    taught = losses.taught.sum()
    return losses.total - taught, taught, weight.sum()


def _first(chosen: Tensor, n: int) -> Tensor:
    """Return 0 .. n - 1 with some of them first, int64 [n]."""
    other = torch.ones(n, dtype=torch.bool, device=chosen.device)
    other[chosen] = False
    return torch.cat([chosen, other.nonzero().squeeze(1)])


def _composed_losses(
    step: Step, lesson: Lesson | None, gate: Tensor | None, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    target = step.target.unsqueeze(1)
    own = step.scores.of(target)
    truth = step.scores.normaliser(target, own) - own.squeeze(1)
    weight = torch.ones_like(truth) if step.weight is None else step.weight
    taught = truth.new_zeros(())
    if lesson is not None and gate is not None:
        teaching, place, heard = lesson.teaching, step.place, step.scores
        share = alpha * teaching.labelled_at(place)
        truth, factor, taught_weight = (1 - share) * truth, share * gate[place], weight
        distinct = torch.unique(step.target)
        if (sample := teaching.sample(place)) is not None:
            place, heard, factor = place[sample.rows], heard.rows(sample.rows), sample.scale * factor[sample.rows]
            taught_weight = weight[sample.rows]
        taught = (taught_weight * (factor * teaching.losses(place, heard, distinct))).sum()
    return (weight * truth).sum(), taught, weight.sum()


def _epoch_gate(course: Course, rows: npt.NDArray[np.int64]) -> Tensor | None:
    if course.lesson is None:
        return None
    corpus, teaching = course.domain.corpus, course.lesson.teaching
    used = teaching.labelled & course.windows.take(rows).held(corpus)
    return torch.from_numpy(scaled_gate(teaching.gate, used)).to(teaching.device, torch.float32)
