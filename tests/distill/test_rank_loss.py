"""The likelihood of a teacher's order against explicit sets, by hand, and where there is no order."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_references import (
    Array,
    float32,
    measured_rank,
    reference_rank,
    stored,
)

from ckd.stages.distill.losses import rank


@pytest.fixture
def scores() -> tuple[Array, Array]:
    draw = np.random.default_rng(0)
    return draw.normal(0, 2, (7, 12)), draw.normal(0, 2, (7, 12))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("k", [1, 2, 5, 11])
def test_rank_is_the_mean_surprise_of_the_teachers_choices(scores: tuple[Array, Array], k: int, whole: bool) -> None:
    student, teacher = scores
    wanted = reference_rank(student, np.argsort(-teacher, axis=1), k, whole)
    np.testing.assert_allclose(measured_rank(float32(student), teacher, k, whole).numpy(), wanted, rtol=2e-4, atol=1e-5)


def test_rank_by_hand() -> None:
    student, order = torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([[-1.0, -2.0, -3.0]])
    # Among the listed two: 0.5 of 0.8. Among all three: 0.5, and then 0.3 of 0.5.
    assert rank(student[:, :2], None, order[:, :2]).item() == pytest.approx(math.log(0.8 / 0.5))
    whole = rank(student[:, :2], torch.zeros(1), order[:, :2])
    assert whole.item() == pytest.approx((math.log(1 / 0.5) + math.log(0.5 / 0.3)) / 2, abs=1e-6)
    # The best item alone: cross-entropy on it, or no choice at all.
    assert rank(student[:, :1], torch.zeros(1), order[:, :1]).item() == pytest.approx(math.log(2), abs=1e-6)
    assert rank(student[:, :1], None, order[:, :1]).item() == 0


@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_no_order_is_likelier_than_the_students_own(seed: int, k: int) -> None:
    draw = np.random.default_rng(seed)
    student = draw.normal(0, 2, (1, 12))
    listed = draw.permutation(12)[:k]
    own = listed[np.argsort(-student[0, listed])]

    def value(order: Array) -> float:
        logits = torch.tensor(student[:, order])
        return rank(logits, None, -torch.arange(float(k), dtype=torch.float64).unsqueeze(0)).item()

    assert value(own) <= value(draw.permutation(listed)) + 1e-12


def test_only_among_the_listed_does_it_not_matter_where_in_the_catalogue_they_stand() -> None:
    draw = np.random.default_rng(3)
    student, teacher = draw.normal(0, 1, (2, 4, 12))
    items, _, _ = stored(teacher, 5)
    lifted = student.copy()
    np.put_along_axis(lifted, items, np.take_along_axis(student, items, 1) + 3, axis=1)
    alone = [measured_rank(float32(logits), teacher, 5, whole=False) for logits in (student, lifted)]
    torch.testing.assert_close(*alone)
    low, high = (measured_rank(float32(logits), teacher, 5, whole=True) for logits in (student, lifted))
    assert (high < low - 0.5).all()


def test_items_that_the_teacher_finds_equal_are_in_no_order() -> None:
    equal = torch.tensor([[-1.0, -2.0, -2.0, -3.0]])
    student = torch.tensor([[0.3, 1.2, -0.4, 0.1]], dtype=torch.float64)
    found = [rank(student[:, order], None, equal.double()).item() for order in ([0, 1, 2, 3], [0, 2, 1, 3])]
    assert found[0] == pytest.approx(found[1])
    a, b, c, d = student[0].exp().tolist()
    # Each of the two against what stands behind both; the last item has nothing behind it.
    wanted = math.log((a + b + c + d) / a) + math.log((b + d) / b) + math.log((c + d) / c)
    assert found[0] == pytest.approx(wanted / 3)
    # With all equal there is no choice.
    assert rank(student, None, torch.zeros(1, 4, dtype=torch.float64)).item() == 0


def test_what_a_list_is_filled_up_with_is_no_choice() -> None:
    student = torch.tensor([[0.5, 0.2, 0.1]]).log()
    teacher, listed = torch.tensor([[-0.5, -3.0, -3.0]]), torch.tensor([[True, False, False]])
    assert rank(student, torch.zeros(1), teacher, listed).item() == pytest.approx(math.log(2), abs=1e-6)
    assert rank(student, torch.zeros(1), teacher, torch.zeros(1, 3, dtype=torch.bool)).item() == 0


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("size", [1.0, 100.0, 10_000.0])
def test_rank_is_as_exact_in_float32_with_large_logits_as_in_float64(size: float, whole: bool) -> None:
    draw = np.random.default_rng(5)
    student, teacher = size * draw.normal(0, 1, (4, 30)), draw.normal(0, 1, (4, 30))
    student[:, 0], teacher[:, 0] = size, 5  # a sure agreement beside sure mistakes
    results = []
    for dtype in (torch.float32, torch.float64):
        logits = torch.tensor(student, dtype=torch.float32).to(dtype).requires_grad_()
        value = measured_rank(logits, teacher, 12, whole)
        value.sum().backward()
        assert logits.grad is not None
        assert torch.isfinite(value).all()
        assert torch.isfinite(logits.grad).all()
        results.append((value.detach().double(), logits.grad.double()))
    (value, gradient), (wanted, wanted_gradient) = results
    torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-3, atol=1e-4)
