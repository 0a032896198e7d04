"""The epochs of every training that makes a teacher: resumable, stopped early on validation, on one process or several.

After each epoch all that the next one depends on is written into the draft of the artifact; an interrupted training
that is started again goes on from there and ends with the same bytes as one that was not interrupted. What is random
in an epoch is drawn from the seed, the number of the epoch, of the step and of the process, not from what came before.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ckd.stages.teachers import parallel
from ckd.stages.teachers.contract import Job
from ckd.stages.teachers.settings import Precision
from ckd.stages.teachers.state import Epoch, Progress, restore, save
from ckd.storage.errors import UserError
from ckd.storage.progress import forget_training

__all__ = ["Epoch", "generator", "run_epochs"]


def generator(seed: int, *numbers: int) -> np.random.Generator:
    """Return the random numbers of one epoch or step."""
    # How many there are stands first, for numpy takes [seed, 1] and [seed, 1, 0] for the same.
    return np.random.default_rng([len(numbers), seed, *numbers])


def run_epochs(
    job: Job,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: Callable[[int, np.random.Generator], Sequence[Any]],
    loss_of: Callable[[Any, np.random.Generator], Tensor],
    *,
    seed: int,
    epochs: int,
    validate: Callable[[], Epoch] | None = None,
    watched: str = "ndcg@10",
    patience: int | None = None,
    first: int = 1,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    precision: Precision = "auto",
    clip: float | None = None,
    second: "Phase | None" = None,
) -> list[Epoch]:
    """Train a network in place, leave it with the weights of its best epoch, return the curve. Once per job.

    With several processes each takes its share of every batch, and gradients are averaged: a loss that is a mean
    over rows is that of the whole batch, and so is a mean over positions times :func:`parallel.weight`.

    Args:
        job: where the state is kept, and whom to tell.
        model: the network, on the job's device.
        optimiser: over its trained parameters.
        batches: (epoch, its random numbers) to the rows of each step.
        loss_of: (rows, random numbers of the step) to the loss, a scalar.
        seed: of all random numbers.
        epochs: the last one.
        validate: measures the network after an epoch; without it the last epoch is kept.
        watched: the measure that chooses the epoch, larger is better.
        patience: epochs without a better one before training stops.
        first: the first epoch; 0 measures the network before its first step.
        schedule: of the learning rate, moved on after each step.
        precision: ``bfloat16`` runs the forward pass under autocast; ``auto`` does so on a GPU.
        clip: largest norm of the gradient.
        second: goes on from the best weights when the epochs or the patience are used up; needs ``validate``.

    Raises:
        UserError: the loss or a weight is no longer finite, or no batch has a row for every process.
    """
    steps = _Steps(job, model, optimiser, loss_of, seed, schedule, _mixed(precision, job.device), clip)
    parts = {"model": model, "optimiser": optimiser} | ({} if schedule is None else {"schedule": schedule})
    parallel.start_equal(model.parameters())
    progress = Progress() if job.state is None else restore(job.state, parts)
    phases = [Phase(batches, epochs, None if validate is None else patience), *([] if second is None else [second])]
    for number in range(progress.phase, len(phases)):
        progress.enter(number, model)
        # What only the first process changed in validation, such as a table, is among the best weights.
        parallel.start_equal(model.parameters())
        for epoch in range(first + len(progress.curve), progress.entered + phases[number].epochs + 1):
            if progress.waited(epoch) >= (phases[number].patience or math.inf):
                break
            started = time.perf_counter()
            rows = phases[number].batches(epoch, generator(seed, epoch)) if epoch else ()
            loss = steps.take(epoch, rows) if epoch else math.nan
            measured = {} if validate is None else parallel.from_first(validate)
            row = {"epoch": epoch, "loss": loss} | {name: float(value) for name, value in measured.items()}
            progress.note(row | {"seconds": time.perf_counter() - started}, model, watched if measured else None)
            parallel.on_first(lambda: save(job, parts, progress))
            job.on_epoch(progress.curve[-1])
    if progress.weights is not None:
        model.load_state_dict(progress.weights)
    model.eval()
    return progress.curve


@dataclass(frozen=True)
class Phase:
    """A part of a training.

    Attributes:
        batches: (epoch, its random numbers) to the rows of each step; epochs are counted through all phases.
        epochs: of this phase, at most.
        patience: its epochs without a better one before it ends.
    """

    batches: Callable[[int, np.random.Generator], Sequence[Any]]
    epochs: int
    patience: int | None


def _mixed(precision: Precision, device: torch.device) -> bool:
    return precision == "bfloat16" or (precision == "auto" and device.type == "cuda")


@dataclass(frozen=True)
class _Steps:
    """The steps of an epoch."""

    job: Job
    model: nn.Module
    optimiser: torch.optim.Optimizer
    loss_of: Callable[[Any, np.random.Generator], Tensor]
    seed: int
    schedule: torch.optim.lr_scheduler.LRScheduler | None
    mixed: bool
    clip: float | None

    def take(self, epoch: int, batches: Iterable[Any]) -> float:
        """Take one step per batch; return the mean loss, of all processes."""
        self.model.train()
        torch.manual_seed(int(generator(self.seed, epoch, parallel.rank()).integers(2**63)))
        shares = [rows for rows in map(parallel.share, batches) if len(rows)]
        if not shares:
            raise UserError(
                f"no batch has a row for each of the {parallel.count()} processes; "
                "raise batch_size, or start fewer processes"
            )
        losses = [
            self._step(rows, generator(self.seed, epoch, step, parallel.rank())) for step, rows in enumerate(shares)
        ]
        loss = float(parallel.mean(torch.stack(losses).mean()))
        self._check(epoch, loss)
        return loss

    def _check(self, epoch: int, loss: float) -> None:
        finite = all(bool(tensor.detach().isfinite().all()) for tensor in self.model.parameters())
        if finite and math.isfinite(loss):
            return
        if self.job.draft is not None:
            forget_training(self.job.draft)  # from there it would diverge again
        what = f"a weight is not finite after epoch {epoch}"
        if not math.isfinite(loss):
            what = f"the loss of epoch {epoch} is {loss}"
        raise UserError(f"the training diverged: {what}; lower the learning_rate")

    def _step(self, rows: Any, draw: np.random.Generator) -> Tensor:
        with torch.autocast(self.job.device.type, torch.bfloat16, enabled=self.mixed):
            loss = self.loss_of(rows, draw)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parallel.average_gradients(self.model.parameters())
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimiser.step()
        if self.schedule is not None:
            self.schedule.step()
        return loss.detach()
