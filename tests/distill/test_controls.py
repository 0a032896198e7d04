"""What is taught under a control, and with fewer items than are stored."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ckd.stages.distill.controls import controlled, cut_to
from ckd.stages.distill.holding import training_labels
from ckd.stages.distill.relevant import relevant_teaching
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.teaching import Teaching, row_index
from ckd.stages.students.scores import FullScores
from ckd.storage.labels import read_labels

Array = npt.NDArray[Any]
CPU = torch.device("cpu")
TOP_K: dict[str, Any] = {"loss": {"top_k": 1.0}}


def settings(**options: Any) -> DistillSettings:
    return DistillSettings.model_validate({**TOP_K, **options})


@pytest.fixture
def labels(random_world: Any) -> Any:
    shape = (random_world.corpus.n_positions, random_world.corpus.n_items)
    return random_world.label("t", np.random.default_rng(0).normal(0, 2, shape), 6)


def losses(world: Any, labels: Any, option: DistillSettings) -> Array:
    """The loss of every labelled training position, of a student that scores at random."""
    teaching = Teaching.load(world.corpus, {"t": labels}, option, CPU)
    place = torch.from_numpy(np.flatnonzero(teaching.labelled))
    logits = torch.from_numpy(np.random.default_rng(1).normal(0, 1, (len(place), world.corpus.n_items)))
    values = teaching.losses(place, FullScores(logits), torch.zeros(1, dtype=torch.int64))
    return values.double().numpy()


def test_shuffled_labels_are_those_of_other_positions_each_used_once(random_world: Any, labels: Any) -> None:
    block = training_labels(labels, random_world.corpus, settings())
    row = row_index(block, random_world.corpus)
    same, mixed = controlled(block, row, "shuffled")
    assert same is block
    np.testing.assert_array_equal(mixed < 0, row < 0)
    np.testing.assert_array_equal(np.sort(mixed), np.sort(row))
    assert (mixed != row).sum() > 0.8 * (row >= 0).sum()
    np.testing.assert_array_equal(mixed, controlled(block, row, "shuffled")[1])


def test_shuffling_changes_what_is_taught_where_and_not_what_there_is(random_world: Any, labels: Any) -> None:
    plain = losses(random_world, labels, settings())
    shuffled = losses(random_world, labels, settings(control="shuffled"))
    assert abs(plain - shuffled).max() > 0.1


def test_one_hot_is_cross_entropy_on_the_best_item(random_world: Any, labels: Any) -> None:
    found = losses(random_world, labels, settings(control="one_hot"))
    block = read_labels(labels, random_world.corpus)
    logits = np.random.default_rng(1).normal(0, 1, (len(found), random_world.corpus.n_items))
    best = block.items[block.split == 0][:, 0]
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(best)), best]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_labels_cut_to_k_teach_what_labels_of_that_k_teach(random_world: Any) -> None:
    shape = (random_world.corpus.n_positions, random_world.corpus.n_items)
    scores = np.random.default_rng(3).normal(0, 2, shape)
    long, short = random_world.label("long", scores, 6), random_world.label("short", scores, 2)
    cut = losses(random_world, long, settings(teacher_items=2))
    np.testing.assert_allclose(cut, losses(random_world, short, settings()), rtol=1e-5)
    assert abs(cut - losses(random_world, long, settings())).max() > 1e-3


def test_more_items_than_are_stored_are_all_of_them(random_world: Any, labels: Any) -> None:
    block = training_labels(labels, random_world.corpus, settings())
    assert cut_to(block, 99) is block
    assert cut_to(block, None) is block


@pytest.mark.parametrize("control", ["shuffled", "one_hot"])
def test_a_control_changes_what_teachers_say_and_not_what_they_count(random_world: Any, control: str) -> None:
    draw, shape = np.random.default_rng(4), (random_world.corpus.n_positions, random_world.corpus.n_items)
    both = {name: random_world.label(name, draw.normal(0, 2, shape), 6) for name in ("one", "other")}
    weighting = {"gate_confidence": 1.0}
    plain, under_control = (
        Teaching.load(random_world.corpus, both, settings(control=name, weighting=weighting), CPU)
        for name in ("none", control)
    )
    assert len(np.unique(plain.gate[plain.labelled])) > 10
    np.testing.assert_array_equal(under_control.gate, plain.gate)
    place, batch = torch.from_numpy(np.flatnonzero(plain.labelled)), torch.zeros(1, dtype=torch.int64)
    for voice, same in zip(under_control.voices(place, batch), plain.voices(place, batch), strict=True):
        assert voice.top_k is not None
        assert same.top_k is not None
        torch.testing.assert_close(voice.top_k, same.top_k, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("teachers", "weighting", "other"),
    [
        (("a", "b"), {}, True),
        (("a",), {}, False),
        (("a",), {"gate_confidence": 1.0}, True),
        (("a", "b"), {"confidence": "none", "consistency": "none"}, False),
    ],
)
def test_students_of_controls_that_were_weighed_have_other_keys(
    teachers: tuple[str, ...], weighting: dict[str, Any], other: bool
) -> None:
    found = relevant_teaching(settings(control="one_hot", weighting=weighting), [teachers])
    assert found["control"] == "one_hot"
    assert ("weighed" in found) == other
    assert "weighed" not in relevant_teaching(settings(weighting=weighting), [teachers])
