"""The losses by blocks of scores against the same losses put together by autograd: values and gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ckd.stages.distill.fused import Best, Losses, Voice, fused_losses
from ckd.stages.distill.losses import in_batch, top_k

N, ITEMS, WIDTH, K = 23, 31, 8, 5


class Case:
    """Random states, items and teachers in float64; some positions are not labelled."""

    def __init__(self, seed: int = 0, teachers: int = 2, sharpness: float = 1.0) -> None:
        draw = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64)

        self.states = (sharpness * normal(N, WIDTH)).requires_grad_()
        self.items = normal(ITEMS, WIDTH).requires_grad_()
        self.target = torch.randint(0, ITEMS // 2, (N,), generator=draw)
        self.distinct = torch.unique(self.target)
        self.truth_weight = torch.rand(N, generator=draw, dtype=torch.float64)
        self.raw = [2 * normal(N, ITEMS) for _ in range(teachers)]
        self.weights = [
            [torch.rand(N, generator=draw, dtype=torch.float64) * (normal(N) > -0.5) for _ in range(2)]
            for _ in self.raw
        ]

    def best(self, teacher: int) -> Best:
        logprobs = self.raw[teacher].log_softmax(1)
        kept, items = logprobs.topk(K, dim=1)
        return Best(items, kept, kept.exp().sum(1))

    def voices(self, losses: set[str], temperatures: tuple[float, ...]) -> list[Voice]:
        return [
            Voice(
                a if "top_k" in losses else None,
                b if "in_batch" in losses else None,
                best=lambda here, p=p: Best(*(part[here] for part in self.best(p))),
                among=lambda here, p=p: self.raw[p][here][:, self.distinct],
                temperature=temperatures[p],
            )
            for p, (a, b) in enumerate(self.weights)
        ]

    def composed(self, losses: set[str], temperature: float, temperatures: tuple[float, ...]) -> Losses:
        logits = self.states @ self.items.T
        logsumexp = logits.logsumexp(1)
        truth = self.truth_weight * (logsumexp - logits.gather(1, self.target.unsqueeze(1)).squeeze(1))
        taught = torch.zeros_like(truth)
        for p, (a, b) in enumerate(self.weights):
            best = self.best(p)
            if "top_k" in losses:
                cells = [best.logprobs, (1 - best.kept_mass).log().unsqueeze(1)]
                own = (torch.cat(cells, 1) / temperatures[p]).log_softmax(1)
                softened = own[:, :-1], own[:, :-1].exp().sum(1)
                taught = taught + a * top_k(logits.gather(1, best.items), logsumexp, *softened, temperature)
            if "in_batch" in losses:
                scores = self.raw[p][:, self.distinct] / temperatures[p]
                taught = taught + b * in_batch(logits[:, self.distinct], scores, temperature)
        return Losses(truth.sum() + taught.sum(), truth, taught)

    def gradients(self, total: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(total, (self.states, self.items))


def assert_same(case: Case, fused: Losses, wanted: Losses, **tolerance: Any) -> None:
    for one, other in zip(fused, wanted, strict=True):
        torch.testing.assert_close(one, other.detach(), **tolerance, msg=lambda text: f"values: {text}")
    for one, other in zip(case.gradients(fused.total), case.gradients(wanted.total), strict=True):
        torch.testing.assert_close(one, other, **tolerance, msg=lambda text: f"gradients: {text}")


@pytest.mark.parametrize("rows", [1, 7, N, None])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("losses", [set(), {"top_k"}, {"in_batch"}, {"top_k", "in_batch"}])
def test_values_and_gradients_are_those_of_the_losses_put_together(
    losses: set[str], temperature: float, rows: int | None
) -> None:
    case, plain = Case(), (1.0, 1.0)
    fused = fused_losses(
        case.states,
        case.items,
        case.target,
        case.distinct,
        case.truth_weight,
        case.voices(losses, plain),
        temperature,
        rows,
    )
    assert_same(case, fused, case.composed(losses, temperature, plain), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_some_of_the_targets_in_any_order_can_be_compared(temperature: float) -> None:
    case, plain = Case(4), (1.0, 1.0)
    case.distinct = case.distinct.flip(0)[:5]
    assert not torch.isin(case.target, case.distinct).all()
    arguments = case.states, case.items, case.target, case.distinct, case.truth_weight
    fused = fused_losses(*arguments, case.voices({"top_k", "in_batch"}, plain), temperature, 7)
    wanted = case.composed({"top_k", "in_batch"}, temperature, plain)
    assert_same(case, fused, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("heard", [0, 1, 9, N])
def test_teachers_can_be_heard_at_the_first_positions_alone(heard: int, temperature: float) -> None:
    case, plain = Case(5), (1.0, 1.0)
    both = {"top_k", "in_batch"}
    case.weights = [[weight[:heard] for weight in pair] for pair in case.weights]
    arguments = case.states, case.items, case.target, case.distinct, case.truth_weight
    fused = fused_losses(*arguments, case.voices(both, plain), temperature, 4, heard)
    case.weights = [[torch.cat([weight, weight.new_zeros(N - heard)]) for weight in pair] for pair in case.weights]
    assert_same(case, fused, case.composed(both, temperature, plain), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_teacher_can_have_a_temperature_of_its_own(temperature: float) -> None:
    case, own = Case(1), (2.5, 1.0)
    both = {"top_k", "in_batch"}
    arguments = case.states, case.items, case.target, case.distinct, case.truth_weight
    fused = fused_losses(*arguments, case.voices(both, own), temperature, 5)
    assert_same(case, fused, case.composed(both, temperature, own), rtol=1e-9, atol=1e-9)
    plain = fused_losses(*arguments, case.voices(both, (1.0, 1.0)), temperature, 5)
    assert (plain.taught - fused.taught).abs().max() > 1e-3


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_float32_is_as_exact_as_the_losses_put_together(temperature: float) -> None:
    case, plain = Case(2, sharpness=3.0), (1.0, 1.0)
    both = {"top_k", "in_batch"}
    wanted = case.composed(both, temperature, plain)
    exact = case.gradients(wanted.total)
    case.states, case.items = (tensor.detach().float().requires_grad_() for tensor in (case.states, case.items))
    case.truth_weight, case.raw = case.truth_weight.float(), [raw.float() for raw in case.raw]
    case.weights = [[weight.float() for weight in pair] for pair in case.weights]
    fused = fused_losses(
        case.states,
        case.items,
        case.target,
        case.distinct,
        case.truth_weight,
        case.voices(both, plain),
        temperature,
    )
    torch.testing.assert_close(fused.total.double(), wanted.total.detach(), rtol=1e-5, atol=1e-4)
    for one, other in zip(case.gradients(fused.total), exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


def test_targets_that_have_next_to_no_probability_are_still_told_apart() -> None:
    """The student puts everything on an item that nobody of the batch chose: p of the targets is zero in float32."""
    case = Case(3, teachers=1)
    states, items = torch.ones(N, 1), torch.zeros(ITEMS, 1)
    items[ITEMS - 1] = 500.0
    items[: ITEMS - 1] = torch.linspace(0, 1, ITEMS - 1).unsqueeze(1)
    case.states, case.items = states.requires_grad_(), items.requires_grad_()
    case.truth_weight, case.raw = torch.zeros(N), [raw.float() for raw in case.raw]
    case.weights = [[torch.ones(N), torch.ones(N)]]
    fused = fused_losses(
        case.states,
        case.items,
        case.target,
        case.distinct,
        case.truth_weight,
        case.voices({"in_batch"}, (1.0,)),
    )
    assert_same(case, fused, case.composed({"in_batch"}, 1.0, (1.0,)), rtol=1e-4, atol=1e-5)


def test_a_gradient_from_above_is_passed_on() -> None:
    case = Case(4)
    arguments = case.states, case.items, case.target, case.distinct, case.truth_weight
    once = case.gradients(fused_losses(*arguments).total)
    scaled = case.gradients(3 * fused_losses(*arguments).total)
    for one, other in zip(once, scaled, strict=True):
        torch.testing.assert_close(3 * one, other)
