"""Where a distilled student's items start: the principal components of the teachers' item vectors."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckd.stages.distill.geometry import principal_items
from ckd.stages.distill.run import prepare_lesson, train_run
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.evaluate.settings import EvaluateSettings
from ckd.stages.students import STUDENTS
from ckd.storage.errors import UserError
from ckd.storage.keys import Address

Array = npt.NDArray[Any]


def vectors(seed: int, n_items: int, width: int) -> Array:
    return (np.random.default_rng(seed).normal(3, 2, (n_items, width)) * np.arange(1, width + 1)).astype(np.float32)


def similarities(items: Array) -> Array:
    """Dot products between items, at a scale of their own."""
    centred = items.astype(np.float64) - items.mean(0, dtype=np.float64)
    products = centred @ centred.T
    return products / np.linalg.norm(products)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), width=st.integers(1, 6), wider=st.integers(0, 4))
def test_with_room_enough_every_dot_product_between_items_is_kept(seed: int, width: int, wider: int) -> None:
    teacher = vectors(seed, 17, width)
    start = principal_items([teacher], width + wider, 0.1)
    np.testing.assert_allclose(similarities(start), similarities(teacher), atol=1e-6)
    assert (start[:, width:] == 0).all()


def test_with_less_room_it_is_the_best_of_its_rank() -> None:
    """Eckart and Young: no matrix of rank 3 is nearer to the centred vectors than their first three components."""
    teacher = vectors(1, 40, 8)
    centred = teacher.astype(np.float64) - teacher.mean(0, dtype=np.float64)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    best = left[:, :3] * values[:3]
    start = principal_items([teacher], 3, 1.0).astype(np.float64)
    np.testing.assert_allclose(similarities(start), best @ best.T / np.linalg.norm(best @ best.T), atol=1e-6)


def test_each_teacher_counts_as_much_as_another_whatever_its_scale() -> None:
    one, other = vectors(1, 30, 4), vectors(2, 30, 5)
    mixed = similarities(principal_items([one, other], 9, 1.0))
    np.testing.assert_allclose(mixed, similarities(principal_items([1000 * one, other], 9, 1.0)), atol=1e-6)
    assert abs(mixed - similarities(one)).max() > 1e-3
    assert abs(mixed - similarities(other)).max() > 1e-3


@pytest.mark.parametrize("spread", [0.02, 1.5])
def test_the_numbers_have_the_spread_that_is_asked_for_and_are_the_same_every_time(spread: float) -> None:
    teacher = vectors(5, 50, 7)
    start = principal_items([teacher], 4, spread)
    assert start.dtype == np.float32
    assert start.std() == pytest.approx(spread, rel=1e-5)
    np.testing.assert_array_equal(start, principal_items([teacher.copy()], 4, spread))


def test_a_teacher_whose_items_are_all_alike_says_nothing() -> None:
    assert (principal_items([np.ones((6, 3), np.float32)], 2, 0.1) == 0).all()


def start_of(world: Any, labels: Any, **options: Any) -> torch.Tensor:
    """The item vectors of a student after training that moves nothing: those that it started from."""
    kind = STUDENTS.load("sasrec")
    student = kind.Settings(hidden=4, heads=1, blocks=1, max_length=8, learning_rate=1e-30, weight_decay=0)
    option = DistillSettings(epochs=1, loss={"top_k": 1.0}, curriculum={"pacing": "none"}, **options)
    device = torch.device("cpu")
    run = train_run(
        world.store,
        Address("runs", {"options": options}),
        {"d": world.corpus},
        student,
        option,
        EvaluateSettings(),
        (lambda: {"d": prepare_lesson(world.corpus, world.artifact, labels, option, device)}) if labels else None,
        0,
        device,
    )
    from safetensors.torch import load_file

    return load_file(run.path / "model.safetensors")["items.weight"]


def test_a_distilled_student_starts_from_its_teachers_items_and_from_chance_otherwise(random_world: Any) -> None:
    n, positions = random_world.corpus.n_items, random_world.corpus.n_positions
    teacher = vectors(3, n, 4)
    state = np.random.default_rng(0).normal(0, 0.01, (positions, 4)).astype(np.float32)
    labels = {"t": random_world.label("t", state @ teacher.T, 3, state=state, vectors=teacher)}
    chance = start_of(random_world, labels)
    taught = start_of(random_world, labels, item_start="teacher")
    np.testing.assert_allclose(taught.numpy(), principal_items([teacher], 4, float(chance.std())), rtol=1e-5)
    assert not torch.equal(chance, taught)


def test_teachers_without_item_vectors_give_no_start(random_world: Any) -> None:
    scores = np.random.default_rng(0).normal(size=(random_world.corpus.n_positions, random_world.corpus.n_items))
    with pytest.raises(UserError, match=r"distill\.item_start: none of the teachers has item vectors"):
        start_of(random_world, {"t": random_world.label("t", scores, 3)}, item_start="teacher")
