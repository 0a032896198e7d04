"""The epochs of every training that makes a teacher: resumable, stopped early on validation, on one process or several.

After each epoch all that the next one depends on is written into the draft of the artifact; an interrupted training
that is started again goes on from there and ends with the same bytes as one that was not interrupted. What is random
in an epoch is drawn from the seed, the number of the epoch and the number of the step, not from what came before.
"""

import io
import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ckd.stages.teachers import parallel
from ckd.stages.teachers.contract import Job
from ckd.stages.teachers.settings import Precision
from ckd.storage.errors import UserError

STATE = "training-state.pt"
"""File of the draft that holds the state after the last whole epoch; it is no part of the finished artifact."""

Epoch = dict[str, float]


@dataclass
class Progress:
    """What an epoch leaves to the next one, beside the state of network and optimiser.

    Attributes:
        curve: one row per epoch so far.
        best: best value on validation; ``best_epoch`` is where.
        weights: of that epoch; None without validation.
    """

    curve: list[Epoch] = field(default_factory=list)
    best: float = -1.0
    best_epoch: int = 0
    weights: dict[str, Tensor] | None = None


def generator(seed: int, *numbers: int) -> np.random.Generator:
    """Return the random numbers of one epoch or step."""
    return np.random.default_rng([seed, *numbers])


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
) -> list[Epoch]:
    """Train a network in place, leave it with the weights of its best epoch, return the curve.

    Args:
        job: where the state is kept, and whom to tell.
        model: the network, on the job's device.
        optimiser: over its trained parameters.
        batches: (epoch, its random numbers) to the rows of each step; with several processes each step takes its share.
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

    Raises:
        UserError: the loss is no longer finite.
    """
    torch.manual_seed(seed + parallel.rank())
    parts: dict[str, Any] = {"model": model, "optimiser": optimiser}
    if schedule is not None:
        parts["schedule"] = schedule
    progress = _resumed(job, parts)
    mixed = precision == "bfloat16" or (precision == "auto" and job.device.type == "cuda")
    for epoch in range(len(progress.curve) + first, epochs + 1):
        if patience is not None and epoch > first and len(progress.curve) + first - 1 - progress.best_epoch >= patience:
            break
        started = time.perf_counter()
        model.train()
        losses = []
        for step, rows in enumerate(batches(epoch, generator(seed, epoch)) if epoch else ()):
            with torch.autocast(job.device.type, torch.bfloat16, enabled=mixed):
                loss = loss_of(parallel.share(rows), generator(seed, epoch, step, parallel.rank()))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            parallel.average_gradients(model.parameters())
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimiser.step()
            if schedule is not None:
                schedule.step()
            losses.append(loss.detach())
        mean = float(torch.stack(losses).mean()) if losses else float("nan")
        if losses and not math.isfinite(mean):
            raise UserError(f"the training diverged: the loss of epoch {epoch} is {mean}; lower the learning_rate")
        measured = parallel.from_first(validate() if parallel.rank() == 0 else {}) if validate is not None else {}
        row = {"epoch": epoch, "loss": mean, **measured, "seconds": time.perf_counter() - started}
        _note(progress, row, model, watched if validate is not None else None)
        _save(job, parts, progress)
        job.on_epoch(row)
    if progress.weights is not None:
        model.load_state_dict(progress.weights)
    model.eval()
    return progress.curve


def _note(progress: Progress, row: Epoch, model: nn.Module, watched: str | None) -> None:
    progress.curve.append(row)
    if watched is not None and row[watched] > progress.best:
        progress.best, progress.best_epoch = row[watched], int(row["epoch"])
        progress.weights = deepcopy(model.state_dict())


def _save(job: Job, parts: dict[str, Any], progress: Progress) -> None:
    if job.draft is None:
        return
    state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
    state |= {"progress": vars(progress), "random": torch.get_rng_state()}
    if job.device.type == "cuda":
        state["random_cuda"] = torch.cuda.get_rng_state(job.device)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    # Through the buffer, since what torch.save raises on a full disk is no OSError.
    job.draft.add(STATE, lambda path: _write(path, buffer))


def _write(path: Any, buffer: io.BytesIO) -> None:
    path.write_bytes(buffer.getbuffer())


def _resumed(job: Job, parts: dict[str, Any]) -> Progress:
    """Return the progress of an interrupted training, its network and optimiser put back, or that of a fresh one."""
    found = job.draft is not None and job.draft.receipt(STATE) is not None
    data = parallel.from_first((job.draft.partial / STATE).read_bytes() if found and job.draft is not None else None)
    if data is None:
        return Progress()
    state = torch.load(io.BytesIO(data), map_location=job.device, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    if parallel.count() == 1:
        torch.set_rng_state(state["random"].cpu())
        if "random_cuda" in state:
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), job.device)
    else:
        # The other processes' states are not kept: dropout goes on from a seed of its own.
        torch.manual_seed(int(generator(len(data), parallel.rank()).integers(2**32)))
    return Progress(**state["progress"])
