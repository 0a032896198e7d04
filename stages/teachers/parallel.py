"""Training on several processes, as torchrun starts them: one per GPU, or on one machine without any through gloo.

Outside torchrun there is one process, and everything here does nothing.
"""

import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from ckd.storage.errors import UserError

T = TypeVar("T")

_PATIENCE = timedelta(days=2)
"""The other processes wait this long for what the first one does alone, such as the text vectors of a large domain.
A process that died is noticed at once by gloo and by torchrun, however long this is."""


class Stopped(UserError):
    """The first process failed, and says why."""


@contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started, while the body runs."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    # Its functions take the group of that moment for their default. Imported later, as the first optimiser does it,
    # it keeps the group beyond its end, and gloo's threads, which abort an interpreter that is being taken down.
    importlib.import_module("torch.distributed.nn")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def on_first(do: Callable[[], T]) -> T | None:
    """Call a function on the first process; return what it gave there, and None on the others, when it is done.

    Raises:
        Stopped: on the others, if it raised anything on the first.
    """
    if count() == 1:
        return do()
    done, failed = None, [True]
    try:
        if rank() == 0:
            done = do()
            failed = [False]
    finally:
        dist.broadcast_object_list(failed, src=0)
    if failed[0]:
        raise Stopped("the first process failed; what it printed says why")
    return done


def from_first(make: Callable[[], T]) -> T:
    """Call a function on the first process alone and return on all of them what it gave.

    Raises:
        Stopped: on the others, if it raised anything on the first.
    """
    carried: list[Any] = [on_first(make)]
    if count() > 1:
        dist.broadcast_object_list(carried, src=0)
    made: T = carried[0]
    return made


def first_then_others(make: Callable[[], T]) -> T:
    """Call a function on the first process, and on the others when that is done: they find what it stored.

    Raises:
        Stopped: on the others, if it raised anything on the first.
    """
    made: list[T] = []
    on_first(lambda: made.append(make()))
    return made[0] if made else make()


def share(rows: Any) -> Any:
    """Return this process' rows of a batch, every count-th.

    All processes get equally many: up to ``count - 1`` rows at the end of the batch are left out.
    """
    return rows[: len(rows) // count() * count()][rank() :: count()]


def gathered(vectors: Tensor) -> Tensor:
    """Return the rows [B, d] of all processes one after the other, [B * count, d]; B is the same on all.

    Gradients flow through the rows of this process only.
    """
    if count() == 1:
        return vectors
    rows = [torch.empty_like(vectors) for _ in range(count())]
    dist.all_gather(rows, vectors.detach().contiguous())
    rows[rank()] = vectors
    return torch.cat(rows)


def mean(value: Tensor) -> Tensor:
    """Return the mean of a tensor over the processes."""
    if count() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / count()


def weight(n: int) -> float:
    """Return what this process' mean over its n positions of a batch counts, so that the mean of all is over positions.

    Processes have equally many sequences, but not equally many positions.
    """
    if count() == 1:
        return 1.0
    total = torch.tensor(float(n), dtype=torch.float64)
    dist.all_reduce(total)
    return n * count() / float(total)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over the processes; one that is missing counts as zero."""
    if count() == 1:
        return
    trained = [tensor for tensor in parameters if tensor.requires_grad]
    # As one tensor: hundreds of small messages would take longer than the step.
    total = mean(torch.cat([(torch.zeros_like(t) if t.grad is None else t.grad).flatten() for t in trained]))
    for tensor, part in zip(trained, total.split([tensor.numel() for tensor in trained]), strict=True):
        tensor.grad = part.view_as(tensor)


def start_equal(parameters: Iterable[Tensor]) -> None:
    """Overwrite the parameters of the other processes with those of the first."""
    if count() > 1:
        for tensor in parameters:
            dist.broadcast(tensor.detach(), src=0)
