"""Cross-entropy over a whole catalogue, one block of scores at a time.

Scores of N positions and n_items items, their softmax and the gradient of both are the largest tensors of a training
step: at 3,400 positions and 12,000 items each takes 160 MB. A block that stays in the processor's cache is scored,
turned into its gradient in place and multiplied into the gradients of states and items before the next is begun.
`benchmarks/speed/full_softmax.py` measures what it is worth.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_SCORES_PER_BLOCK = {"cpu": 1 << 20, "cuda": 1 << 27}
"""4 MiB of float32: smaller blocks stay in nearer caches, larger ones make threads wait for each other less often
(`benchmarks/speed/losses.py`). A GPU would rather have few large ones."""


def block_rows(states: Tensor, items: Tensor) -> int:
    """Return how many positions at a time suit the device, of states [N, d] and items [n_items, d]."""
    return max(16, _SCORES_PER_BLOCK.get(states.device.type, 1 << 24) // len(items))


def slices(start: int, stop: int, size: int) -> Iterator[slice]:
    """Yield the blocks from one position to another (exclusive), of at most so many each."""
    return (slice(at, min(at + size, stop)) for at in range(start, stop, size))


def full_softmax_loss(states: Tensor, items: Tensor, target: Tensor, rows_per_block: int | None = None) -> Tensor:
    """Return the mean of -log softmax(states . items)[target] over N positions, differentiable in states and items.

    Under autocast it is computed in float32: of a sum of exponentials bfloat16 would keep hardly a digit.

    Args:
        states: float [N, d].
        items: float [n_items, d].
        target: int64 [N], rows of ``items``.
        rows_per_block: positions at a time; what suits the device by default.
    """
    rows = rows_per_block or block_rows(states, items)
    dtype = torch.promote_types(states.dtype, torch.float32)
    with torch.autocast(states.device.type, enabled=False):
        loss: Tensor = _ByBlocks.apply(states.to(dtype), items.to(dtype), target, rows)
    return loss


class _ByBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, items: Tensor, target: Tensor, rows_per_block: int) -> Tensor:
        n = len(states)
        loss, grad_states, grad_items = states.new_empty(n), torch.empty_like(states), torch.zeros_like(items)
        scores, gradient = states.new_empty(2, min(rows_per_block, n), len(items))
        for here in slices(0, n, rows_per_block):
            block, chosen = slice(here.stop - here.start), target[here].unsqueeze(1)
            torch.mm(states[here], items.T, out=scores[block])
            torch.log_softmax(scores[block], 1, out=gradient[block])
            loss[here] = -gradient[block].gather(1, chosen).squeeze(1)
            gradient[block].exp_().scatter_add_(1, chosen, gradient.new_full((), -1.0).expand(chosen.shape))
            torch.mm(gradient[block], items, out=grad_states[here])
            grad_items.addmm_(gradient[block].T, states[here])
        ctx.save_for_backward(grad_states, grad_items)
        return loss.mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_states, grad_items = ctx.saved_tensors
        scale = grads[0] / len(grad_states)
        return grad_states * scale, grad_items * scale, None, None
