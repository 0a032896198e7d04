"""Explanations: a world in which every number is known, and on random ones what the training itself holds."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch

from ckd.stages.batching import training_windows
from ckd.stages.distill.curriculum import difficulty, served
from ckd.stages.distill.explain import explain, nearest_users, user_code
from ckd.stages.distill.explanation import Explanation, Item, Position, Said
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.teaching import Teaching
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError

Array = npt.NDArray[Any]
ALL = 1_000
"""More positions than any sequence has."""


def settings(**values: Any) -> DistillSettings:
    return DistillSettings.model_validate({"loss": {"top_k": 1.0}, **values})


def item(code: int) -> Item:
    return Item(f"i{code:03}", f"title {code}")


# ---------------------------------------------------------------------------------------------------------------
# A world by hand. Teacher a gives the truth y probability 1/2 and y + 1 1/4, teacher b the other way round; both store
# these two. b says nothing of u0002 after its second position, and a nothing after the third.

SEQUENCES = [[0, 1, 2, 3, 0], [1, 2, 0], [0, 1, 2, 3, 1, 2, 3]]
CHANCES = {"a": [1 / 2, 1 / 4, 1 / 8, 1 / 8], "b": [1 / 4, 1 / 2, 1 / 8, 1 / 8]}
LAST = {"a": 3, "b": 2}


class ByHand:
    """The world, its labels, and what is explained of it to a student that sees three items."""

    def __init__(self, make_world: Any) -> None:
        self.world = make_world(SEQUENCES, 4)
        self.corpus: Corpus = self.world.corpus
        at = self.corpus.positions()
        self.labels = {}
        for teacher in ("b", "a"):
            chances = np.array([np.roll(CHANCES[teacher], target) for target in at.target])
            rows = np.flatnonzero((at.user != 2) | (at.position <= LAST[teacher]))
            self.labels[teacher] = self.world.label(teacher, np.log(chances), 2, rows=rows)

    def explain(self, **values: Any) -> Explanation:
        return explain(
            self.corpus, self.world.artifact, self.labels, settings(**values), 3, users=[0, 1, 2], positions=ALL
        )


@pytest.fixture
def by_hand(make_world: Any) -> ByHand:
    return ByHand(make_world)


def said(of: Position, teacher: str) -> Said:
    found = of.teachers[teacher]
    assert found is not None
    return found


def test_where_both_teachers_speak_every_number_is_the_one_by_hand(by_hand: ByHand) -> None:
    (_, second) = by_hand.explain().users[0].positions
    assert (second.position, second.state, second.target) == (2, "taught", item(2))
    assert list(second.teachers) == ["a", "b"]
    a, b = said(second, "a"), said(second, "b")
    assert (a.target_rank, b.target_rank) == (1, 2)
    assert (a.target_probability, b.target_probability) == pytest.approx((1 / 2, 1 / 4))
    assert (a.confidence, b.confidence) == pytest.approx((1 / 2, 1 / 4))
    assert (a.consistency, b.consistency) == pytest.approx((1 / 2, 1 / 2))
    assert (a.weight, b.weight) == pytest.approx((2 / 3, 1 / 3))
    # The gate is 1/2 at the three positions of both teachers that are seen, and 1 where a is alone: 5/8 on average.
    assert second.gate == pytest.approx(0.5 / 0.625)
    assert second.truth_weight == pytest.approx(0.2)
    assert a.loss_weight == pytest.approx(0.8 * 0.8 * 2 / 3)
    assert b.loss_weight == pytest.approx(0.8 * 0.8 * 1 / 3)
    assert [(one.item_id, one.title) for one in a.items] == [("i002", "title 2"), ("i003", "title 3")]
    assert [(one.item_id, one.title) for one in b.items] == [("i003", "title 3"), ("i002", "title 2")]
    assert [one.probability for one in b.items] == pytest.approx([1 / 2, 1 / 4])


def test_a_teacher_alone_has_all_the_weight_and_the_other_none(by_hand: ByHand) -> None:
    third = by_hand.explain().users[2].positions[2]
    a = said(third, "a")
    assert third.teachers["b"] is None
    assert (third.state, third.target) == ("taught", item(3))
    assert (a.consistency, a.weight, third.gate) == pytest.approx((1, 1, 1 / 0.625))
    assert a.loss_weight == pytest.approx(0.8 * 1.6)


def test_a_position_without_any_label_is_the_truth_alone(by_hand: ByHand) -> None:
    last = by_hand.explain().users[2].positions[3]
    assert last == Position(
        4, "truth", item(1), counts=1.0, truth_weight=1.0, gate=None, teachers={"a": None, "b": None}
    )


def test_a_position_before_the_students_window_is_never_seen(by_hand: ByHand) -> None:
    first = by_hand.explain().users[2].positions[0]
    assert (first.position, first.state, first.truth_weight, first.gate) == (1, "cut", None, None)
    assert said(first, "a").loss_weight is None
    assert said(first, "a").weight == pytest.approx(2 / 3)


def test_positions_are_counted_by_what_becomes_of_them(by_hand: ByHand) -> None:
    found = by_hand.explain()
    assert (found.sequences, found.trained, found.cut, found.unlabelled) == (2, 5, 1, 1)
    assert [(user.items, user.cut, user.trained, user.unlabelled) for user in found.users] == [
        (5, 0, 2, 0),
        (3, 0, 0, 0),
        (7, 1, 3, 1),
    ]


def test_a_user_with_nothing_to_train_on_is_never_served(by_hand: ByHand) -> None:
    user = by_hand.explain().users[1]
    assert (user.user_id, user.first_epoch, user.positions) == ("u0001", None, ())


def test_the_terms_of_the_difficulty_have_value_rank_and_weight(by_hand: ByHand) -> None:
    found = by_hand.explain(curriculum={"difficulty": {"teacher_loss": 2.0, "length": 0.5}})
    terms = [{name: (term.rank, term.weight) for name, term in user.terms.items()} for user in found.users]
    # -log 1/2 and -log 1/4 at every position of both, and once more -log 1/2 at the position where a is alone.
    assert terms == [
        {"teacher_loss": (1.0, 2.0), "length": (0.5, 0.5)},
        {"teacher_loss": (0.0, 2.0), "length": (0.0, 0.5)},
        {"teacher_loss": (0.5, 2.0), "length": (1.0, 0.5)},
    ]
    losses = [user.terms["teacher_loss"].value for user in found.users]
    assert losses[1] is None
    assert [losses[0], losses[2]] == pytest.approx([1.5 * np.log(2), (3 * np.log(2) + 2 * np.log(4)) / 5], rel=1e-6)
    assert [user.difficulty for user in found.users] == [1.0, 0.0, 0.5]


def test_a_training_that_ends_before_a_user_is_served_teaches_it_nothing(by_hand: ByHand) -> None:
    found = by_hand.explain(epochs=1, curriculum={"difficulty": {"length": 1.0}, "start": 0.5})
    assert (found.epoch, found.share) == (1, 0.5)
    first, _, last = found.users
    assert (first.first_epoch, last.first_epoch) == (1, None)
    # Only the first user is served, and both of its gates are 1/2.
    assert [at.gate for at in first.positions] == pytest.approx([1, 1])
    assert [at.state for at in last.positions] == ["cut", "unserved", "unserved", "unserved"]
    assert {at.gate for at in last.positions} == {at.truth_weight for at in last.positions} == {None}
    assert said(last.positions[1], "a").loss_weight is None


def test_without_a_curriculum_all_are_served_at_once_and_nothing_is_difficult(by_hand: ByHand) -> None:
    found = by_hand.explain(curriculum={"pacing": "none"})
    assert (found.epoch, found.share) == (1, 1.0)
    assert [user.first_epoch for user in found.users] == [1, None, 1]
    assert [(user.difficulty, user.terms) for user in found.users] == [(None, {})] * 3


def test_only_the_last_positions_and_the_best_items_that_are_asked_for_are_told(by_hand: ByHand) -> None:
    corpus, artifact = by_hand.corpus, by_hand.world.artifact
    found = explain(corpus, artifact, by_hand.labels, settings(), 3, users=[2, 0, 2], positions=2, items=1)
    assert [user.user_id for user in found.users] == ["u0002", "u0000"]
    assert [at.position for at in found.users[0].positions] == [3, 4]
    assert [one.item_id for one in said(found.users[0].positions[0], "a").items] == ["i003"]


def test_weights_are_times_what_the_student_lets_a_position_count(by_hand: ByHand) -> None:
    def counting(length: int) -> Array:
        return np.arange(1.0, length + 1) / 4

    plain = by_hand.explain().users[2].positions
    found = explain(
        by_hand.corpus,
        by_hand.world.artifact,
        by_hand.labels,
        settings(),
        3,
        users=[2],
        positions=ALL,
        position_weights=counting,
    ).users[0]
    # The first of the four positions is cut: the student sees three, and the last of these no teacher has a label of.
    assert [at.counts for at in found.positions] == [None, 1 / 4, 2 / 4, 3 / 4]
    assert [at.truth_weight for at in found.positions[1:]] == pytest.approx([0.2 / 4, 0.2 * 2 / 4, 3 / 4])
    for at, same, count in zip(found.positions[1:3], plain[1:3], (1 / 4, 2 / 4), strict=True):
        assert said(at, "a").loss_weight == pytest.approx(count * (said(same, "a").loss_weight or 0))
    assert [at.gate for at in found.positions] == [at.gate for at in plain]


def test_an_explanation_is_json_without_infinities(by_hand: ByHand) -> None:
    found = by_hand.explain(curriculum={"difficulty": {"teacher_loss": 1.0}})
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["users"][1]["terms"]["teacher_loss"]["value"] is None


def test_a_teacher_that_labelled_no_training_position_is_refused_as_by_the_training(by_hand: ByHand) -> None:
    held_out = np.flatnonzero(by_hand.corpus.positions().split != 0)
    scores = np.zeros((by_hand.corpus.n_positions, 4))
    by_hand.labels["late"] = by_hand.world.label("late", scores, 2, rows=held_out)
    with pytest.raises(UserError, match=r"teacher late cover no training position"):
        by_hand.explain()


# ---------------------------------------------------------------------------------------------------------------
# Against what the training holds

OPTIONS = {
    "default": settings(),
    "gated by both": settings(weighting={"gate_confidence": 0.5, "gate_consistency": 2.0}),
    "by rank and Jaccard": settings(weighting={"confidence": "target_rank", "consistency": "top_k_jaccard"}),
    "cut short": settings(epochs=2, curriculum={"pacing": "linear", "start": 0.4, "warmup": 6}),
    "unscheduled": settings(curriculum={"pacing": "none"}),
    "of fewer items": settings(teacher_items=2),
    "shuffled": settings(control="shuffled"),
}


class Told:
    """A random world with three teachers, two of which lack positions."""

    def __init__(self, world: Any) -> None:
        draw = np.random.default_rng(2)
        self.corpus: Corpus = world.corpus
        self.artifact: Artifact = world.artifact
        shape = (self.corpus.n_positions, self.corpus.n_items)
        self.labels: Mapping[str, Artifact] = {
            name: world.label(name, draw.normal(0, 2, shape), 4, rows=np.flatnonzero(draw.random(shape[0]) < share))
            for name, share in {"z": 1.0, "m": 0.5, "a": 0.4}.items()
        }

    def explain(self, option: DistillSettings, max_length: int = 5, **values: Any) -> Explanation:
        return explain(self.corpus, self.artifact, self.labels, option, max_length, **values)

    def everything(self, option: DistillSettings, max_length: int = 5) -> Explanation:
        return self.explain(option, max_length, users=range(self.corpus.n_users), positions=ALL)


@pytest.fixture
def told(random_world: Any) -> Told:
    return Told(random_world)


@pytest.mark.parametrize("option", OPTIONS.values(), ids=list(OPTIONS))
def test_the_weights_shown_are_those_that_the_training_holds(told: Told, option: DistillSettings) -> None:
    teaching = Teaching.load(told.corpus, dict(sorted(told.labels.items())), option, torch.device("cpu"))
    held = teaching._weight.numpy()
    shown = np.zeros_like(held)
    gate = np.full(told.corpus.n_positions, np.nan)
    found = told.everything(option)
    for code, user in enumerate(found.users):
        for at in user.positions:
            place = told.corpus.position_offsets[code] + at.position - 1
            shown[:, place] = [0.0 if one is None else one.weight for one in at.teachers.values()]
            gate[place] = np.nan if at.gate is None else at.gate
            if at.state == "taught":
                parts = [one for one in at.teachers.values() if one is not None]
                if option.weighting.confidence == "target_probability":
                    assert all(one.confidence == pytest.approx(one.target_probability) for one in parts)
                assert sum(one.weight for one in parts) == pytest.approx(1)
                assert sum(one.loss_weight or 0 for one in parts) == pytest.approx(option.alpha * gate[place])
    np.testing.assert_array_equal(shown, held)
    used = ~np.isnan(gate)
    cut = training_windows(told.corpus, 5)
    wanted = np.zeros_like(used)
    for row in served(difficulty_of(told, option)[cut.user], found.epoch, option.curriculum):
        first = told.corpus.position_offsets[cut.user[row]] + cut.position[row] - 1
        wanted[first : first + cut.length[row]] = True
    np.testing.assert_array_equal(used, wanted & teaching.labelled)
    assert gate[used].mean() == pytest.approx(1)
    np.testing.assert_allclose(gate[used], teaching.gate[used] / teaching.gate[used].mean())
    if option is OPTIONS["cut short"]:
        assert found.share < 1


def difficulty_of(told: Told, option: DistillSettings) -> Array:
    if option.curriculum.pacing == "none":
        return np.zeros(told.corpus.n_users)
    return difficulty(told.corpus, told.artifact, told.labels, option.curriculum.difficulty)


@pytest.mark.parametrize("option", OPTIONS.values(), ids=list(OPTIONS))
def test_the_first_epoch_is_the_first_in_which_the_training_serves_the_user(
    told: Told, option: DistillSettings
) -> None:
    cut = training_windows(told.corpus, 5)
    hardness = difficulty_of(told, option)
    users = [set(cut.user[served(hardness[cut.user], e, option.curriculum)]) for e in range(1, option.epochs + 1)]
    for code, user in enumerate(told.everything(option).users):
        assert user.first_epoch == next((e for e, now in enumerate(users, 1) if code in now), None)
        assert user.difficulty == (None if option is OPTIONS["unscheduled"] else hardness[code])


def test_the_truth_is_the_item_that_followed(told: Told) -> None:
    for code, user in enumerate(told.everything(OPTIONS["default"]).users):
        sequence = told.corpus.sequence_of(code)
        assert [at.position for at in user.positions] == list(range(1, len(sequence) - 2))
        assert [at.target for at in user.positions] == [item(sequence[at.position]) for at in user.positions]


def test_the_examples_are_the_easiest_the_median_and_the_hardest_that_can_be_trained_on(told: Told) -> None:
    hardness = difficulty_of(told, OPTIONS["default"])
    trainable = [user for user in np.argsort(hardness) if told.corpus.lengths[user] > 3]
    wanted = [trainable[0], trainable[(len(trainable) - 1) // 2], trainable[-1]]
    found = told.explain(OPTIONS["default"]).users
    assert [user.user_id for user in found] == [f"u{code:04}" for code in wanted]
    assert [user.picked for user in found] == ["easiest", "median", "hardest"]
    assert found == told.explain(OPTIONS["default"]).users


def test_of_one_user_there_is_one_example(make_world: Any) -> None:
    world = make_world([[0, 1, 2, 0], [0, 1, 2]], 3)
    labels = {"t": world.label("t", np.zeros((world.corpus.n_positions, 3)), 2)}
    found = explain(world.corpus, world.artifact, labels, settings(), 5)
    assert [(user.user_id, user.picked) for user in found.users] == [("u0000", "easiest")]


def test_what_cannot_be_trained_is_not_explained(by_hand: ByHand) -> None:
    with pytest.raises(UserError, match=r"distill\.loss\.in_batch needs the states of teacher a, its labels hold none"):
        by_hand.explain(loss={"in_batch": 1.0})


# ---------------------------------------------------------------------------------------------------------------
# Identifiers


def test_a_user_is_found_by_the_text_of_its_identifier(told: Told) -> None:
    assert user_code(told.corpus, "u0007") == 7
    assert user_code(told.corpus, "u07") is None
    numbered = Corpus("k", told.corpus.items, pa.array([3, 12, 40]), np.array([0, 3, 6, 9]), np.zeros(9, np.int32))
    assert (user_code(numbered, "12"), user_code(numbered, "012"), user_code(numbered, "x")) == (1, None, None)


def test_the_nearest_users_differ_in_the_fewest_characters(told: Told) -> None:
    assert nearest_users({"d": told.artifact}, "u00010", 2) == ["u0000", "u0001"]
    assert nearest_users({"d": told.artifact}, "u0011x", 1) == ["u0011"]
    assert len(nearest_users({"d": told.artifact}, "it's; drop")) == 3
