"""Each loss against its formula in float64, and against numbers worked out by hand."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.distill.losses import cross_entropy, in_batch, top_k

TEMPERATURES = [0.5, 1.0, 2.0, 5.0]
Array = npt.NDArray[np.float64]


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Array = powers / powers.sum(axis=1, keepdims=True)
    return result


def tempered_kl(p: Array, q: Array, temperature: float) -> Array:
    """T^2 KL of two rows of probabilities raised to 1/T."""
    p, q = (cells ** (1 / temperature) for cells in (p, q))
    p, q = (cells / cells.sum(axis=1, keepdims=True) for cells in (p, q))
    result: Array = temperature**2 * np.sum(p * np.log(p / q), axis=1)
    return result


def with_rest(kept: Array) -> Array:
    return np.column_stack([kept, 1 - kept.sum(axis=1)])


def float32(values: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float32)


def stored(scores: Array, k: int) -> tuple[npt.NDArray[np.int64], Array, Array]:
    """Items, log-probabilities and kept mass of the k best of each row, as a label holds them."""
    p = softmax(scores)
    items = np.argsort(-p, axis=1)[:, :k]
    kept = np.take_along_axis(p, items, axis=1)
    return items, np.log(kept), kept.sum(axis=1)


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
    assert cross_entropy(student, normaliser, torch.tensor([0])).item() == pytest.approx(math.log(4))
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
