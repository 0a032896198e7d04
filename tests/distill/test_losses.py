"""Each loss against its formula in float64, and against numbers worked out by hand."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_references import (
    Array,
    float32,
    measured_plus_student,
    measured_rank,
    reference_plus_student,
    softmax,
    stored,
    tempered_kl,
    union,
    with_rest,
)

from ckd.stages.distill.comparisons import COMPARISONS
from ckd.stages.distill.losses import in_batch, top_k
from ckd.stages.distill.settings import SCORING_LOSSES, LossName

TEMPERATURES = [0.5, 1.0, 2.0, 5.0]


def measured_top_k(student: Array, teacher: Array, k: int, temperature: float) -> Array:
    items, logprobs, mass = stored(teacher, k)
    logits = float32(student)
    chosen = logits.gather(1, torch.from_numpy(items))
    value = top_k(chosen, logits.logsumexp(1), float32(logprobs), float32(mass), temperature)
    return value.double().numpy()


@pytest.fixture
def scores() -> tuple[Array, Array]:
    draw = np.random.default_rng(0)
    return draw.normal(0, 2, (7, 12)), draw.normal(0, 2, (7, 12))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_in_batch_is_the_scaled_divergence_of_the_tempered_softmaxes(
    scores: tuple[Array, Array], temperature: float
) -> None:
    student, teacher = scores
    value = in_batch(float32(student), float32(teacher), temperature)
    wanted = tempered_kl(softmax(teacher), softmax(student), temperature)
    np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("k", [1, 4, 11])
def test_top_k_is_the_scaled_divergence_over_the_stored_items_and_the_rest(
    scores: tuple[Array, Array], k: int, temperature: float
) -> None:
    student, teacher = scores
    items, logprobs, _ = stored(teacher, k)
    own = np.take_along_axis(softmax(student), items, axis=1)
    wanted = tempered_kl(with_rest(np.exp(logprobs)), with_rest(own), temperature)
    np.testing.assert_allclose(measured_top_k(student, teacher, k, temperature), wanted, rtol=1e-4, atol=1e-5)


def test_top_k_of_the_whole_catalogue_is_the_plain_divergence(scores: tuple[Array, Array]) -> None:
    student, teacher = scores
    wanted = tempered_kl(softmax(teacher), softmax(student), 1.0)
    np.testing.assert_allclose(measured_top_k(student, teacher, 12, 1.0), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_both_are_zero_where_the_student_agrees_with_the_teacher(
    scores: tuple[Array, Array], temperature: float
) -> None:
    _, teacher = scores
    assert in_batch(float32(teacher), float32(teacher), temperature).abs().max() < 1e-5
    for k in (1, 4, 12):
        assert np.abs(measured_top_k(teacher, teacher, k, temperature)).max() < 1e-5


@given(st.integers(0, 2**32 - 1), st.sampled_from(TEMPERATURES), st.integers(1, 12))
def test_neither_is_ever_negative(seed: int, temperature: float, k: int) -> None:
    student, teacher = np.random.default_rng(seed).normal(0, 3, (2, 5, 12))
    assert in_batch(float32(student), float32(teacher), temperature).min() > -1e-5
    assert measured_top_k(student, teacher, k, temperature).min() > -1e-5


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_constant_added_to_all_of_a_students_logits_changes_nothing(
    scores: tuple[Array, Array], temperature: float
) -> None:
    student, teacher = scores
    shifted = student + 7.5
    plain, moved = (in_batch(float32(logits), float32(teacher), temperature) for logits in (student, shifted))
    torch.testing.assert_close(plain, moved, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        measured_top_k(student, teacher, 4, temperature),
        measured_top_k(shifted, teacher, 4, temperature),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("certainty", [20.0, 200.0, 2000.0])
def test_gradients_are_finite_when_the_student_puts_everything_on_the_teachers_items(
    temperature: float, certainty: float
) -> None:
    _, logprobs, mass = stored(np.array([[3.0, 2.0, 1.0, 0.0, -1.0]]), 2)
    logits = torch.tensor([[certainty, certainty, 0.0, 0.0, 0.0]], requires_grad=True)
    value = top_k(logits[:, :2], logits.logsumexp(1), float32(logprobs), float32(mass), temperature)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", ["in_batch", "top_k"])
def test_a_step_against_the_gradient_brings_the_student_nearer(scores: tuple[Array, Array], loss: str) -> None:
    student, teacher = scores
    items, logprobs, mass = stored(teacher, 4)
    logits = float32(student).requires_grad_()

    def value() -> torch.Tensor:
        if loss == "in_batch":
            return in_batch(logits, float32(teacher), 2.0).sum()
        chosen = logits.gather(1, torch.from_numpy(items))
        return top_k(chosen, logits.logsumexp(1), float32(logprobs), float32(mass), 2.0).sum()

    before = value()
    before.backward()
    with torch.no_grad():
        assert logits.grad is not None
        logits -= 0.05 * logits.grad
    assert value() < before


TEACHER = [0.5, 0.25, 0.25]
STUDENT = [0.25, 0.25, 0.5]


def test_three_items_by_hand() -> None:
    student, teacher = torch.tensor([STUDENT]).log(), torch.tensor([TEACHER]).log()
    normaliser = torch.zeros(1)
    # 1/2 ln 2 + 1/4 ln 1 + 1/4 ln 1/2
    assert in_batch(student, teacher, 1.0).item() == pytest.approx(0.25 * math.log(2), abs=1e-6)
    # The best item alone: 1/2 ln(1/2 / 1/4) + 1/2 ln(1/2 / 3/4)
    best = top_k(student[:, :1], normaliser, teacher[:, :1], torch.tensor([0.5]), 1.0)
    assert best.item() == pytest.approx(0.5 * math.log(4 / 3), abs=1e-6)
    # The best two: the third item alone is the rest, so nothing is lost.
    two = top_k(student[:, :2], normaliser, teacher[:, :2], torch.tensor([0.75]), 1.0)
    assert two.item() == pytest.approx(0.25 * math.log(2), abs=1e-6)


def test_three_items_at_temperature_two_by_hand() -> None:
    # Square roots: teacher (s, 1, 1) / (2 + s), student (1, 1, s) / (2 + s) with s = sqrt 2, so
    # KL = (s ln s - ln s) / (2 + s) = 0.0420464, times 4.
    student, teacher = torch.tensor([STUDENT]).log(), torch.tensor([TEACHER]).log()
    wanted = pytest.approx(0.1681857, abs=1e-5)
    assert in_batch(student, teacher, 2.0).item() == wanted
    assert top_k(student[:, :2], torch.zeros(1), teacher[:, :2], torch.tensor([0.75]), 2.0).item() == wanted


def test_a_student_pays_for_probability_that_it_spreads_over_items_the_teacher_did_not_store() -> None:
    teacher = torch.tensor([[0.5, 0.4]]).log()
    mass = torch.tensor([0.9])
    faithful = torch.tensor([[0.5, 0.4]]).log()
    spread = torch.tensor([[0.25, 0.2]]).log()  # the same ratio on the stored items, half the mass
    zero = torch.zeros(1)
    assert top_k(faithful, zero, teacher, mass, 1.0).item() == pytest.approx(0, abs=1e-6)
    wanted = 0.9 * math.log(2) + 0.1 * math.log(0.1 / 0.55)
    assert top_k(spread, zero, teacher, mass, 1.0).item() == pytest.approx(wanted, abs=1e-5)


# ---------------------------------------------------------------------------------------------------------------
# The student's own best items beside the teacher's


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("k", "m"), [(1, 1), (4, 3), (4, 7), (2, 11)])
def test_top_k_plus_student_is_the_divergence_over_the_union_and_the_rest(
    scores: tuple[Array, Array], k: int, m: int, temperature: float
) -> None:
    student, teacher = scores
    sizes = [len(items) for items in union(student, teacher, k, m)]
    assert max(sizes) > k
    value = measured_plus_student(float32(student), teacher, k, m, temperature)
    wanted = reference_plus_student(student, teacher, k, m, temperature)
    np.testing.assert_allclose(value.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_an_item_that_both_put_first_is_counted_once(scores: tuple[Array, Array]) -> None:
    student, teacher = scores
    shared = student.copy()
    shared[:, 0] = teacher[:, 0] = 9.0  # in both lists of every row
    sizes = [len(items) for items in union(shared, teacher, 4, 3)]
    assert max(sizes) < 4 + 3
    value = measured_plus_student(float32(shared), teacher, 4, 3, 2.0)
    np.testing.assert_allclose(value.numpy(), reference_plus_student(shared, teacher, 4, 3, 2.0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_student_whose_best_items_are_the_teachers_is_told_what_top_k_tells_it(
    scores: tuple[Array, Array], temperature: float
) -> None:
    _, teacher = scores
    student = 0.5 * teacher  # the same order
    value = measured_plus_student(float32(student), teacher, 5, 3, temperature)
    np.testing.assert_allclose(value.numpy(), measured_top_k(student, teacher, 5, temperature), rtol=1e-4, atol=1e-5)


def test_the_whole_catalogue_as_union_is_the_plain_divergence(scores: tuple[Array, Array]) -> None:
    student, teacher = scores
    value = measured_plus_student(float32(student), teacher, 3, 12, 1.0).numpy()
    np.testing.assert_allclose(value, tempered_kl(softmax(teacher), softmax(student), 1.0), rtol=1e-4, atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12))
def test_finer_cells_tell_more_and_never_more_than_the_whole_distribution(seed: int, k: int, m: int) -> None:
    student, teacher = np.random.default_rng(seed).normal(0, 2, (2, 5, 12))
    items, logprobs, mass = (torch.tensor(part) for part in stored(teacher, k))
    logits = torch.tensor(student)
    plain = top_k(logits.gather(1, items), logits.logsumexp(1), logprobs, mass, 1.0).numpy()
    plus = measured_plus_student(logits, teacher, k, m, 1.0).numpy()
    # By as much as the least rest may hide.
    assert (plus >= plain - 1e-4).all()
    assert (plus <= tempered_kl(softmax(teacher), softmax(student), 1.0) + 1e-4).all()


def test_a_favourite_that_the_teacher_did_not_store_is_pushed_down_harder_than_by_top_k() -> None:
    teacher = np.array([[5.0, 4.0, 0.0, 0.0, 0.0, 0.0]])
    gradients = []
    for m in (0, 1):
        logits = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0, 4.0]], requires_grad=True)
        items, logprobs, mass = stored(teacher, 2)
        if m:
            value = measured_plus_student(logits, teacher, 2, m, 1.0)
        else:
            chosen = logits.gather(1, torch.from_numpy(items))
            value = top_k(chosen, logits.logsumexp(1), float32(logprobs), float32(mass), 1.0)
        value.sum().backward()
        assert logits.grad is not None
        gradients.append(logits.grad[0])
    plain, plus = gradients
    # In the rest, the favourite is excused by what the teacher leaves to all the others; in a cell of its own by its
    # own share alone, and the others are no longer pushed down for what it did.
    assert plus[5] > plain[5] > 0
    assert plus[2] < plain[2]


# ---------------------------------------------------------------------------------------------------------------
# What all have in common


def all_losses(logits: torch.Tensor, teacher: Array, temperature: float, of_teacher: float) -> dict[str, torch.Tensor]:
    items, logprobs, mass = (torch.tensor(part) for part in stored(teacher, 4))
    raw, logprobs, mass = (part.to(logits.dtype) for part in (torch.tensor(teacher), logprobs, mass))
    return {
        "in_batch": in_batch(logits, raw, temperature, of_teacher),
        "top_k": top_k(logits.gather(1, items), logits.logsumexp(1), logprobs, mass, temperature, of_teacher),
        "top_k_plus_student": measured_plus_student(logits, teacher, 4, 3, temperature, of_teacher),
        "rank": measured_rank(logits, teacher, 4, whole=True),
        "rank, listed": measured_rank(logits, teacher, 4, whole=False),
    }


NAMES = ["in_batch", "top_k", "top_k_plus_student", "rank", "rank, listed"]


@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_each_loss_is_its_slope(scores: tuple[Array, Array], name: str, temperature: float) -> None:
    student, teacher = scores
    logits = torch.tensor(student, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: all_losses(x, teacher, temperature, 2.0)[name], (logits,))


@pytest.mark.parametrize("name", NAMES)
def test_adding_a_constant_to_a_students_logits_changes_no_loss(scores: tuple[Array, Array], name: str) -> None:
    student, teacher = scores
    plain, moved = (
        all_losses(torch.tensor(logits), teacher, 2.0, 1.5)[name].numpy() for logits in (student, student + 50)
    )
    np.testing.assert_allclose(plain, moved, rtol=1e-9)


@pytest.mark.parametrize("certainty", [20.0, 200.0, 2000.0])
@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_is_lost_to_a_student_that_is_sure(name: str, certainty: float) -> None:
    teacher = np.random.default_rng(0).normal(0, 2, (3, 9))
    logits = torch.zeros(3, 9)
    logits[:, 4] = certainty
    logits.requires_grad_()
    value = all_losses(logits, teacher, 0.5, 2.0)[name]
    value.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(value).all()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("of_teacher", [0.5, 3.0])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_teachers_own_temperature_softens_its_side_alone(
    scores: tuple[Array, Array], temperature: float, of_teacher: float
) -> None:
    student, teacher = scores
    found = all_losses(float32(student), teacher, temperature, of_teacher)
    items, logprobs, _ = stored(teacher, 4)
    own = with_rest(np.take_along_axis(softmax(student), items, axis=1))
    wanted = {
        "in_batch": tempered_kl(softmax(teacher), softmax(student), temperature, of_teacher),
        "top_k": tempered_kl(with_rest(np.exp(logprobs)), own, temperature, of_teacher),
        "top_k_plus_student": reference_plus_student(student, teacher, 4, 3, temperature, of_teacher),
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name].numpy(), value, rtol=2e-4, atol=1e-5, err_msg=name)


def test_softening_a_teacher_is_exact_where_raw_scores_are_at_hand(scores: tuple[Array, Array]) -> None:
    student, teacher = scores
    softened = in_batch(float32(student), float32(teacher), 1.0, 2.5)
    torch.testing.assert_close(softened, in_batch(float32(student), float32(teacher / 2.5), 1.0))


def test_every_name_of_a_loss_has_its_comparison() -> None:
    assert set(COMPARISONS) == set(get_args(LossName))
    assert set(SCORING_LOSSES) <= set(COMPARISONS)
