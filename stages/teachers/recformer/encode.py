"""Many histories or items through a Recformer, without padding beyond the longest of a pass."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

from ckd.stages.batching import length_groups, pass_cost, reordered
from ckd.stages.teachers.recformer.network import Recformer
from ckd.stages.teachers.recformer.tokens import Inputs, ItemTokens, Limits, single_items

Int64s = npt.NDArray[np.int64]

TOKENS_PER_PASS = 8_192
"""Not a setting: which histories share a pass must depend on the corpus alone, or the last bits of labels would not."""

_MOST_PASS_COST = 2_048
"""Tokens whose reading takes no longer than what a pass costs beside: estimated for a GPU; on a CPU a pass of the
bundled network costs as much as the positions of :func:`ckd.stages.batching.pass_cost` (6.5 ms, measured). Another
value draws other dropout: ``TEACHER_FORMAT`` goes up."""


def passes(length: Int64s) -> Iterator[Int64s]:
    """Yield row numbers, longest rows first, so that a padded pass holds at most :data:`TOKENS_PER_PASS`."""
    order = np.argsort(-length, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, TOKENS_PER_PASS // max(int(length[order[start]]), 1))
        yield order[start : start + size]
        start += size


def encode(
    model: Recformer, length: Int64s, inputs: Callable[[Int64s], Inputs], device: torch.device, mixed: bool = False
) -> torch.Tensor:
    """Return the vector of each of N token sequences, [N, d], on the device, in the network's dtype.

    The bits do not depend on the number of threads.

    Args:
        model: in evaluation mode.
        length: int64 [N], tokens of each.
        inputs: gives the sequences of some rows.
        device: where the network is.
        mixed: run under bfloat16 autocast; the vectors are float32 all the same.
    """
    out = torch.empty(len(length), model.config.hidden_size, device=device, dtype=next(model.parameters()).dtype)

    @torch.inference_mode()
    def fill(rows: Int64s) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            encoded = model(inputs(rows).to(device))
        out[torch.from_numpy(rows).to(device)] = encoded.to(out.dtype)

    _each(fill, passes(length), device)
    return out


def groups(length: Int64s, device: torch.device) -> list[Int64s]:
    """Return the rows of a batch, int64 [B] tokens each, in groups of like length, each to be read at once."""
    return length_groups(length, min(pass_cost(device), _MOST_PASS_COST))


def encode_batch(model: Recformer, batch: Inputs, device: torch.device) -> torch.Tensor:
    """Return the vector of each of B token sequences, [B, d], of a step of training: in order, with their gradients.

    Args:
        model: the network.
        batch: not on the device yet, for how it is split is found on the processor.
        device: where the network is.
    """
    read = groups(batch.lengths, device)
    return reordered(torch.cat([model(batch.take(rows).to(device)) for rows in read]), np.concatenate(read))


def _each(do: Callable[[Int64s], None], jobs: Iterator[Int64s], device: torch.device) -> None:
    """Do all jobs: on a CPU each one in a single thread, several at a time.

    Several threads in one matrix product would sum in an order that depends on how many they are.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        for job in jobs:
            do(job)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(do, jobs))
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def encode_items(
    model: Recformer, tokens: ItemTokens, limits: Limits, device: torch.device, mixed: bool = False
) -> torch.Tensor:
    """Return the vector of each item, encoded as the history of that one item, [n, d], not normalised."""
    return encode(model, 1 + tokens.lengths, lambda rows: single_items(tokens, rows, limits), device, mixed)
