"""The full softmax by blocks beside torch's own cross-entropy: values, gradients, precision."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ckd.stages.full_softmax import full_softmax_loss

N, ITEMS, WIDTH = 23, 40, 8


def inputs(dtype: torch.dtype = torch.float32, size: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    states = (size * torch.randn(N, WIDTH, generator=draw, dtype=dtype)).requires_grad_()
    items = torch.randn(ITEMS, WIDTH, generator=draw, dtype=dtype).requires_grad_()
    return states, items, torch.randint(ITEMS, (N,), generator=draw)


def of_torch(states: Tensor, items: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(states @ items.T, target)


@pytest.mark.parametrize("rows", [1, 7, N, 100])
def test_by_blocks_of_any_size_it_is_the_cross_entropy(rows):
    states, items, target = inputs()
    found, expected = full_softmax_loss(states, items, target, rows), of_torch(states, items, target)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(3 * found, (states, items)), torch.autograd.grad(3 * expected, (states, items)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_its_gradient_is_that_of_its_value():
    states, items, target = inputs(torch.float64)
    assert torch.autograd.gradcheck(lambda s, v: full_softmax_loss(s, v, target, 7), (states, items))


def test_scores_of_any_size_stay_finite():
    states, items, target = inputs(size=1e4)
    loss = full_softmax_loss(states, items, target)
    torch.testing.assert_close(loss, of_torch(states, items, target))
    assert all(bool(part.isfinite().all()) for part in torch.autograd.grad(loss, (states, items)))


def test_under_autocast_it_is_computed_in_float32():
    states, items, target = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        halves = states @ torch.eye(WIDTH)  # what a network gives there
        assert halves.dtype == torch.bfloat16
        loss = full_softmax_loss(halves, items, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, of_torch(halves.float(), items, target))
    grad_states, grad_items = torch.autograd.grad(loss, (states, items))
    assert grad_states.dtype == grad_items.dtype == torch.float32
