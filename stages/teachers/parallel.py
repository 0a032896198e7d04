"""Training on several processes, as torchrun starts them: one per GPU, or on one machine without any through gloo.

Outside torchrun there is one process, and everything here does nothing.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


@contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started, while the body runs."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
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


def from_first(value: T) -> T:
    """Return on every process what the first one gave."""
    if count() == 1:
        return value
    carried = [value]
    dist.broadcast_object_list(carried, src=0)
    return carried[0]


def first_then_others(make: Callable[[], T]) -> T:
    """Call a function on the first process, and on the others when that is done: they find what it stored."""
    if count() == 1:
        return make()
    made = make() if rank() == 0 else None
    dist.barrier()
    return made if made is not None else make()


def share(rows: T) -> T:
    """Return this process' rows of a batch; all processes get equally many."""
    n = count()
    shared: T = rows[: len(rows) // n * n][rank() :: n]  # type: ignore[index,arg-type]
    return shared


def gathered(vectors: Tensor) -> Tensor:
    """Return the rows [B, d] of all processes one after the other, [B * count, d].

    Gradients flow through the rows of this process only.
    """
    if count() == 1:
        return vectors
    rows = [torch.empty_like(vectors) for _ in range(count())]
    dist.all_gather(rows, vectors.detach().contiguous())
    rows[rank()] = vectors
    return torch.cat(rows)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over the processes."""
    if count() == 1:
        return
    for tensor in parameters:
        if tensor.requires_grad:
            if tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
            dist.all_reduce(tensor.grad)
            tensor.grad /= count()
