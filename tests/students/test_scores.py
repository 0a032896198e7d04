"""Scores of a student by whatever is asked for: against the matrix of all of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.students.contract import Scores
from ckd.stages.students.scores import FullScores

N, N_ITEMS = 5, 9


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(N, N_ITEMS, generator=torch.Generator().manual_seed(0))


def test_items_of_each_position_and_items_of_all_have_their_scores(logits: torch.Tensor) -> None:
    scores: Scores = FullScores(logits)
    own = torch.randint(N_ITEMS, (N, 4), generator=torch.Generator().manual_seed(1))
    shared = torch.tensor([7, 0, 3])
    for n in range(N):
        assert scores.of(own)[n].tolist() == [logits[n, item].item() for item in own[n].tolist()]
        assert scores.among(shared)[n].tolist() == [logits[n, item].item() for item in shared.tolist()]
    torch.testing.assert_close(scores.logsumexp, logits.double().exp().sum(1).log().float())


@given(st.integers(0, 2**32 - 1), st.integers(1, N_ITEMS + 3))
def test_the_best_items_are_those_that_no_other_outscores_best_first(seed: int, m: int) -> None:
    logits = torch.randint(4, (N, N_ITEMS), generator=torch.Generator().manual_seed(seed)).float()
    best = FullScores(logits).best(m)
    assert best.shape == (N, min(m, N_ITEMS))
    for row, items in zip(logits.tolist(), best.tolist(), strict=True):
        assert len(set(items)) == len(items)
        assert [row[item] for item in items] == sorted(row, reverse=True)[:m]


@pytest.mark.parametrize(
    "chosen", [slice(None), slice(1, 4), torch.tensor([True, False, True, True, False]), torch.tensor([4, 1])]
)
def test_some_rows_are_what_scores_of_these_positions_alone_would_be(
    logits: torch.Tensor, chosen: torch.Tensor | slice
) -> None:
    some, alone = FullScores(logits).rows(chosen), FullScores(logits[chosen])
    shared = torch.tensor([2, 8])
    assert some.logsumexp.equal(alone.logsumexp)
    assert some.best(3).equal(alone.best(3))
    assert some.among(shared).equal(alone.among(shared))
    assert some.of(alone.best(3)).equal(alone.of(alone.best(3)))


def test_gradients_reach_the_logits_through_all_but_the_choice_of_the_best(logits: torch.Tensor) -> None:
    logits.requires_grad_()
    scores = FullScores(logits).rows(torch.arange(N) < 3)
    best = scores.best(2)
    assert not best.is_floating_point()
    (scores.of(best).sum() + scores.among(torch.tensor([0])).sum() + scores.logsumexp.sum()).backward()
    assert logits.grad is not None
    assert (logits.grad[:3] > 0).all()
    assert not logits.grad[3:].any()
