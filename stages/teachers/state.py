"""What an epoch of a training leaves to the next one: in memory, and in the draft of the artifact."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ckd.stages.teachers import parallel
from ckd.stages.teachers.contract import Job
from ckd.storage.progress import STATE_FORMAT, TRAINING_STATES

Epoch = dict[str, float]
"""A row of the training curve."""


@dataclass
class Progress:
    """How far a training got, beside the state of its network and optimiser.

    Attributes:
        curve: one row per epoch so far.
        best: best value on validation; ``best_epoch`` is where.
        weights: of that epoch, in main memory; None without validation.
        phase: number of the phase that the last epoch belongs to.
        entered: last epoch before that phase.
    """

    curve: list[Epoch] = field(default_factory=list)
    best: float = -1.0
    best_epoch: int = 0
    weights: dict[str, Tensor] | None = None
    phase: int = 0
    entered: int = 0

    def enter(self, phase: int, model: nn.Module) -> None:
        """Begin a phase, or go on with it; a new one starts from the best weights."""
        if phase == self.phase:
            return
        if self.weights is None:
            raise ValueError("a phase starts from the best weights, and nothing chooses them")
        model.load_state_dict(self.weights)
        self.phase, self.entered = phase, int(self.curve[-1]["epoch"])

    def waited(self, epoch: int) -> int:
        """Return the epochs of this phase since the best one, before ``epoch``."""
        return epoch - 1 - max(self.best_epoch, self.entered)

    def note(self, row: Epoch, model: nn.Module, watched: str | None) -> None:
        """Add a row to the curve; keep the weights if they are the best so far on ``watched``."""
        self.curve.append(row)
        if watched is not None and row[watched] > self.best:
            self.best, self.best_epoch = row[watched], int(row["epoch"])
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def outcome(model: nn.Module, curve: Sequence[Epoch], watched: str, name: str) -> dict[str, Any]:
    """Return the facts about a finished training: its epochs, the one that was kept with its value, the parameters.

    Args:
        model: the trained network.
        curve: one row per epoch.
        watched: the measure that chose the epoch.
        name: under which its value is remembered.
    """
    best = max(curve, key=lambda row: row[watched])
    return {
        "epochs": len(curve),
        "best_epoch": best["epoch"],
        name: best[watched],
        "parameters": sum(tensor.numel() for tensor in model.parameters()),
    }


def save(job: Job, parts: Mapping[str, Any], progress: Progress) -> None:
    """Write the state after the last epoch of the curve into the draft, over that of the last epoch but one.

    Args:
        job: has the draft; without one nothing is written.
        parts: network, optimiser and whatever else has a ``state_dict``, by name.
        progress: so far.
    """
    if job.draft is None:
        return
    state = {name: part.state_dict() for name, part in parts.items()}
    buffer = io.BytesIO()
    torch.save(state | {"progress": vars(progress)}, buffer)
    seconds = sum(row["seconds"] for row in progress.curve)
    facts = {
        "epoch": int(progress.curve[-1]["epoch"]),
        "seconds": round(seconds, 3),
        "format": STATE_FORMAT,
        "made_on": made_on(job.device),
    }
    name = TRAINING_STATES[len(progress.curve) % len(TRAINING_STATES)]
    # Through the buffer, since what torch.save raises on a full disk is no OSError.
    job.draft.add(name, lambda path: _write(path, buffer), facts=facts)


def made_on(device: torch.device) -> dict[str, Any]:
    """Return what of the machine decides a training's numbers: only on the same is a state gone on with."""
    return {"device": device.type, "processes": parallel.count()}


def restore(state: Path, parts: Mapping[str, Any]) -> Progress:
    """Put the parts back into the state that :func:`save` wrote; return the progress until then."""
    saved = torch.load(state, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return Progress(**saved["progress"])


def _write(path: Path, buffer: io.BytesIO) -> None:
    path.write_bytes(buffer.getbuffer())
