"""The sampled normaliser against the exact one."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ckd.stages.distill.losses import top_k
from ckd.stages.students.sampled import SampledScores, uniform_sample
from ckd.stages.students.scores import FullScores

POSITIONS, ITEMS = 4, 7


class Dot:
    def pairs(self, contexts: Tensor, items: Tensor) -> Tensor:
        return torch.einsum("nd,nmd->nm", contexts, items)

    def cross(self, contexts: Tensor, items: Tensor) -> Tensor:
        return contexts @ items.T


def vectors(seed: int = 0, spread: float = 1.5) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = ((POSITIONS, 3), (ITEMS, 3))
    contexts, items = (spread * torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes)
    return contexts, items


def given_items(k: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(ITEMS, generator=draw)[:k] for _ in range(POSITIONS)])


@pytest.mark.parametrize("m", [1, 3, 6])
@pytest.mark.parametrize("k", [1, 4])
def test_over_all_samples_both_normalisers_are_exact_on_average(m: int, k: int) -> None:
    contexts, items = vectors()
    exact = (contexts @ items.T).exp().sum(1)
    known = given_items(k)
    plain, informed = [], []
    for chosen in combinations(range(ITEMS), m):
        scores = SampledScores(Dot(), contexts, items, torch.tensor(chosen))
        plain.append(scores.logsumexp.exp())
        informed.append(scores.normaliser(known, scores.of(known)).exp())
    torch.testing.assert_close(torch.stack(plain).mean(0), exact)
    torch.testing.assert_close(torch.stack(informed).mean(0), exact)
    assert torch.stack(plain).std(0).min() > 0


def test_knowing_the_heaviest_items_makes_the_estimate_surer() -> None:
    contexts, items = vectors()
    known = (contexts @ items.T).topk(3).indices
    scores = [SampledScores(Dot(), contexts, items, torch.tensor(s)) for s in combinations(range(ITEMS), 3)]
    plain = torch.stack([one.logsumexp.exp() for one in scores]).std(0)
    informed = torch.stack([one.normaliser(known, one.of(known)).exp() for one in scores]).std(0)
    assert (informed < plain).all()


def test_an_item_that_stands_in_its_row_already_counts_once() -> None:
    contexts, items = vectors()
    known = given_items(3)
    twice = torch.cat([known, known[:, :1]], 1)
    for sample in combinations(range(ITEMS), 3):
        scores = SampledScores(Dot(), contexts, items, torch.tensor(sample))
        own = scores.of(twice)
        own[:, -1] = -torch.inf
        torch.testing.assert_close(scores.normaliser(twice, own), scores.normaliser(known, scores.of(known)))


@pytest.mark.parametrize("chosen", [torch.tensor([True, False, True, True]), torch.tensor([2, 0, 2]), slice(1, 3)])
def test_scores_at_some_positions_are_rows_of_those_at_all(chosen: Any) -> None:
    contexts, items = vectors()
    scores = SampledScores(Dot(), contexts, items, torch.tensor([6, 1, 4]))
    some = scores.rows(chosen)
    known = given_items(2)
    every = torch.arange(ITEMS)
    torch.testing.assert_close(some.logsumexp, scores.logsumexp[chosen])
    torch.testing.assert_close(some.among(every), scores.among(every)[chosen])
    torch.testing.assert_close(some.of(known[chosen]), scores.of(known)[chosen])
    assert torch.equal(some.best(2), scores.best(2)[chosen])


def test_each_item_is_drawn_equally_often_and_none_twice() -> None:
    draw = np.random.default_rng(0)
    samples = [uniform_sample(10, 4, draw) for _ in range(4000)]
    assert all(len(set(sample.tolist())) == 4 for sample in samples)
    counts = torch.bincount(torch.cat(samples), minlength=10)
    assert ((counts - 1600).abs() < 5 * (4000 * 0.4 * 0.6) ** 0.5).all()


def test_the_mean_over_many_drawn_samples_is_the_normaliser() -> None:
    contexts, items = vectors()
    known, draw = given_items(2), np.random.default_rng(0)
    exact = (contexts @ items.T).exp().sum(1)
    drawn = [SampledScores(Dot(), contexts, items, uniform_sample(ITEMS, 3, draw)) for _ in range(3000)]
    values = torch.stack([one.normaliser(known, one.of(known)).exp() for one in drawn])
    assert ((values.mean(0) - exact).abs() < 5 * values.std(0) / 3000**0.5 + 1e-9).all()


@given(st.integers(0, 10_000), st.integers(1, ITEMS), st.integers(1, ITEMS), st.sampled_from([0.1, 1.5, 30.0]))
def test_the_normaliser_is_never_below_what_is_known(seed: int, m: int, k: int, spread: float) -> None:
    contexts, items = (tensor.float() for tensor in vectors(seed, spread))
    scores = SampledScores(Dot(), contexts, items, uniform_sample(ITEMS, m, np.random.default_rng(seed)))
    known = given_items(k, seed)
    own = scores.of(known)
    normaliser = scores.normaliser(known, own)
    assert torch.isfinite(normaliser).all()
    assert (normaliser >= own.logsumexp(1)).all()
    if k == ITEMS:
        torch.testing.assert_close(normaliser, own.logsumexp(1))


def test_with_all_items_sampled_everything_is_as_with_all_scores() -> None:
    contexts, items = vectors()
    full = FullScores(contexts @ items.T)
    sampled = SampledScores(Dot(), contexts, items, uniform_sample(ITEMS, 100, np.random.default_rng(0)))
    known = given_items(3)
    chosen = torch.tensor([True, False, True, True])
    for one, other in ((sampled, full), (sampled.rows(chosen), full.rows(chosen))):
        some = known[chosen] if one is not sampled else known
        torch.testing.assert_close(one.of(some), other.of(some))
        torch.testing.assert_close(one.among(torch.tensor([5, 0])), other.among(torch.tensor([5, 0])))
        torch.testing.assert_close(one.logsumexp, other.logsumexp)
        torch.testing.assert_close(one.normaliser(some, one.of(some)), other.logsumexp)
        assert torch.equal(one.best(4), other.best(4))


def test_the_best_are_the_best_of_the_sample() -> None:
    contexts, items = vectors()
    sample = torch.tensor([6, 1, 4])
    best = SampledScores(Dot(), contexts, items, sample).best(2)
    whole = contexts @ items.T
    outside = torch.tensor([item for item in range(ITEMS) if item not in sample])
    whole[:, outside] = -torch.inf
    assert torch.equal(best, whole.topk(2).indices)
    assert SampledScores(Dot(), contexts, items, sample).best(10).shape == (POSITIONS, 3)


def test_the_gradient_is_that_of_the_formula_also_where_all_negatives_are_known() -> None:
    contexts, items = vectors()
    contexts.requires_grad_()
    known = given_items(3)
    for sample in (known[0], torch.tensor([0, 2, 5])):

        def normaliser(at: Tensor, sample: Tensor = sample) -> Tensor:
            scores = SampledScores(Dot(), at, items, sample)
            return scores.normaliser(known, scores.of(known))

        assert torch.autograd.gradcheck(normaliser, (contexts,))


def test_the_rest_cell_of_a_teachers_items_stays_finite() -> None:
    contexts, items = (tensor.float() for tensor in vectors(spread=3.0))
    contexts.requires_grad_()
    known = given_items(3)
    labels: Any = torch.full((POSITIONS, 3), 0.3).log()
    for sample in combinations(range(ITEMS), 2):
        scores = SampledScores(Dot(), contexts, items, torch.tensor(sample))
        own = scores.of(known)
        value = top_k(own, scores.normaliser(known, own), labels, torch.full((POSITIONS,), 0.9), 1.0)
        (gradient,) = torch.autograd.grad(value.sum(), contexts)
        assert torch.isfinite(value).all() and (value >= -1e-6).all()
        assert torch.isfinite(gradient).all()
