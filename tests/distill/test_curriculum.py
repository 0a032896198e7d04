"""Difficulty against a plain loop over what is stored; pacing against its formulas."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.distill import curriculum
from ckd.stages.distill.curriculum import difficulty, first_epoch, served, served_share
from ckd.stages.distill.settings import CurriculumSettings, Term
from ckd.storage.artifact import Artifact
from ckd.storage.errors import UserError
from ckd.storage.labels import LabelBlock, read_labels

Array = npt.NDArray[Any]
PACINGS = ("linear", "root", "step", "none")


def settings(pacing: str, start: float = 0.3, warmup: int = 10, steps: int = 3) -> CurriculumSettings:
    return CurriculumSettings.model_validate({"pacing": pacing, "start": start, "warmup": warmup, "steps": steps})


# ---------------------------------------------------------------------------------------------------------------
# Pacing

pacings = st.builds(settings, st.sampled_from(PACINGS), st.floats(0.01, 1), st.integers(0, 20), st.integers(1, 8))
hardnesses = st.lists(st.floats(0, 1), min_size=1, max_size=40).map(np.array)


@pytest.mark.parametrize("epoch", range(1, 14))
@pytest.mark.parametrize(("start", "warmup"), [(0.3, 10), (0.1, 4), (1.0, 5)])
def test_the_share_follows_the_pacing(start: float, warmup: int, epoch: int) -> None:
    p = min(1.0, (epoch - 1) / warmup)
    share = {pacing: served_share(epoch, settings(pacing, start, warmup, 2)) for pacing in PACINGS}
    assert share["none"] == 1
    assert share["linear"] == pytest.approx(start + (1 - start) * p)
    assert share["root"] == pytest.approx(math.sqrt(start**2 + (1 - start**2) * p))
    half = 0.5 if p >= 0.5 else 0.0
    assert share["step"] == pytest.approx(start + (1 - start) * (1.0 if p == 1 else half))


@pytest.mark.parametrize("warmup", [3, 7, 10, 49, 50])
def test_step_holds_each_share_for_equal_times_and_rises_as_often_as_it_says(warmup: int) -> None:
    option = settings("step", 0.2, warmup, steps=warmup)  # a rise with every epoch
    shares = [served_share(epoch, option) for epoch in range(1, warmup + 2)]
    np.testing.assert_allclose(shares, np.linspace(0.2, 1, warmup + 1))


@given(pacings, hardnesses)
def test_an_epoch_serves_as_many_sequences_as_its_share_says(option: CurriculumSettings, hardness: Array) -> None:
    for epoch in range(1, option.warmup + 3):
        wanted = served_share(epoch, option) * len(hardness)
        count = len(served(hardness, epoch, option))
        assert wanted - 1e-6 <= count < wanted + 1 or count == 1


@pytest.mark.parametrize("pacing", ["linear", "step"])
def test_a_share_that_is_a_whole_number_of_sequences_serves_just_these(pacing: str) -> None:
    option = settings(pacing, start=0.2, warmup=4, steps=4)
    assert [len(served(np.zeros(60), epoch, option)) for epoch in range(1, 6)] == [12, 24, 36, 48, 60]


@given(pacings, hardnesses)
def test_what_is_served_only_grows_until_it_is_everything(option: CurriculumSettings, hardness: Array) -> None:
    before: set[int] = set()
    for epoch in range(1, option.warmup + 2):
        now = set(served(hardness, epoch, option).tolist())
        assert before <= now
        before = now
    for epoch in (option.warmup + 1, option.warmup + 100):
        assert served_share(epoch, option) == 1
        assert sorted(served(hardness, epoch, option)) == list(range(len(hardness)))


@given(pacings, hardnesses)
def test_the_first_epoch_of_a_sequence_is_the_first_that_serves_it(option: CurriculumSettings, hardness: Array) -> None:
    epochs = range(1, option.warmup + 3)
    rows = [set(served(hardness, epoch, option).tolist()) for epoch in epochs]
    wanted = [
        next(epoch for epoch, now in zip(epochs, rows, strict=True) if row in now) for row in range(len(hardness))
    ]
    assert first_epoch(hardness, option).tolist() == wanted


@given(pacings, hardnesses, st.integers(1, 25))
def test_no_sequence_that_is_served_is_harder_than_one_that_is_not(
    option: CurriculumSettings, hardness: Array, epoch: int
) -> None:
    rows = served(hardness, epoch, option)
    left = np.setdiff1d(np.arange(len(hardness)), rows)
    assert len(rows) >= 1
    assert not len(left) or hardness[rows].max() <= hardness[left].min()
    assert len(set(rows.tolist())) == len(rows)


# ---------------------------------------------------------------------------------------------------------------
# Difficulty


def mean_ranks(values: Array) -> Array:
    """Rank of each value in [0, 1], equal values share the mean of their places."""
    places = [(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values]
    return np.array(places) / max(len(values) - 1, 1)


def ranked(total: Array) -> Array:
    """Place of each value in [0, 1], of equal ones the first first."""
    order = sorted(range(len(total)), key=lambda place: (total[place], place))
    result = np.empty(len(total))
    result[order] = np.arange(len(total)) / max(len(total) - 1, 1)
    return result


class Told:
    """A random world and two teachers, one of which knows only some of its positions."""

    def __init__(self, world: Any, seed: int = 1) -> None:
        draw = np.random.default_rng(seed)
        self.world, self.corpus = world, world.corpus
        shape = (world.corpus.n_positions, world.corpus.n_items)
        some = np.flatnonzero(draw.random(shape[0]) < 0.7)
        self.labels: dict[str, Artifact] = {
            "b": world.label("b", draw.normal(0, 2, shape), 4),
            "a": world.label("a", draw.normal(0, 2, shape), 6, rows=some),
        }

    def difficulty(self, **terms: float) -> Array:
        return difficulty(self.corpus, self.world.artifact, self.labels, terms)

    def training(self, teacher: str) -> LabelBlock:
        block = read_labels(self.labels[teacher], self.corpus)
        return block.take(np.flatnonzero(block.split == 0))

    def term(self, value_of: Callable[[int], list[float]]) -> Array:
        """Mean of a user's values; a user without any is the easiest."""
        values = [value_of(user) for user in range(self.corpus.n_users)]
        return np.array([np.mean(one) if one else -np.inf for one in values])


@pytest.fixture
def told(random_world: Any) -> Told:
    return Told(random_world)


def length_term(told: Told) -> Array:
    return told.corpus.lengths.astype(np.float64)


def popularity_term(told: Told) -> Array:
    known = [told.corpus.sequence_of(user)[:-2] for user in range(told.corpus.n_users)]
    count = np.bincount(np.concatenate(known), minlength=told.corpus.n_items)
    return told.term(lambda user: (-np.log(count[known[user]] / count.sum())).tolist())


def teacher_loss_term(told: Told) -> Array:
    blocks = [told.training(teacher) for teacher in told.labels]
    return told.term(
        lambda user: [-float(value) for block in blocks for value in block.target_logprob[block.user == user]]
    )


def entropy_term(told: Told) -> Array:
    blocks = [told.training(teacher) for teacher in told.labels]
    return told.term(lambda user: [float(value) for block in blocks for value in block.entropy[block.user == user]])


def disagreement_term(told: Told) -> Array:
    one, other = (told.training(teacher) for teacher in told.labels)
    values: dict[int, list[float]] = {}
    for i in range(len(one)):
        for j in np.flatnonzero((other.user == one.user[i]) & (other.position == one.position[i])):
            p = dict(zip(one.items[i].tolist(), np.exp(one.logprobs[i].astype(float)), strict=True))
            q = dict(zip(other.items[j].tolist(), np.exp(other.logprobs[j].astype(float)), strict=True))
            shared = sum(min(p[item], q[item]) for item in p.keys() & q.keys())
            values.setdefault(int(one.user[i]), []).append(1 - shared)
    return told.term(lambda user: values.get(user, []))


TERMS: dict[str, Callable[[Told], Array]] = {
    "length": length_term,
    "popularity": popularity_term,
    "teacher_loss": teacher_loss_term,
    "disagreement": disagreement_term,
    "avg(entropy)": entropy_term,
}


@pytest.mark.parametrize("term", TERMS)
def test_each_term_is_what_a_plain_loop_gives(told: Told, term: str) -> None:
    values = TERMS[term](told)
    assert len(np.unique(values)) >= 5
    np.testing.assert_array_equal(told.difficulty(**{term: 1.0}), ranked(mean_ranks(values)))


def test_terms_are_ranked_and_then_summed_with_their_weights(told: Told) -> None:
    weights = {"length": 0.5, "teacher_loss": 2.0, "avg(entropy)": -1.0}
    total = sum(weight * mean_ranks(TERMS[term](told)) for term, weight in weights.items())
    np.testing.assert_array_equal(told.difficulty(**weights), ranked(np.asarray(total)))


def test_difficulty_is_a_rank_between_zero_and_one_that_no_two_users_share(told: Told) -> None:
    for terms in ({"length": 1.0}, {"disagreement": 1.0, "popularity": 2.0}):
        values = told.difficulty(**terms)
        np.testing.assert_allclose(np.sort(values), np.linspace(0, 1, told.corpus.n_users))


def test_users_that_are_equal_in_every_term_are_ordered_by_identifier(make_world: Any) -> None:
    world = make_world([[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2], [0, 1, 2]], 4)
    hardness = difficulty(world.corpus, world.artifact, {}, {"length": 1.0})
    np.testing.assert_allclose(hardness, [2 / 3, 1, 0, 1 / 3])


def test_a_single_teacher_never_disagrees(random_world: Any) -> None:
    draw = np.random.default_rng(0)
    scores = draw.normal(0, 2, (random_world.corpus.n_positions, random_world.corpus.n_items))
    hardness = difficulty(
        random_world.corpus, random_world.artifact, {"only": random_world.label("only", scores, 3)}, {"disagreement": 1}
    )
    np.testing.assert_allclose(hardness, np.linspace(0, 1, random_world.corpus.n_users))


def test_a_user_that_no_teacher_labelled_is_the_easiest_in_the_teachers_terms(make_world: Any) -> None:
    world = make_world([[0, 1, 2, 3, 1]] * 3, 4)
    scores = np.random.default_rng(0).normal(0, 2, (world.corpus.n_positions, 4))
    labels = {"t": world.label("t", scores, 4, rows=np.flatnonzero(world.corpus.positions().user != 1))}
    for term in ("teacher_loss", "avg(entropy)"):
        assert difficulty(world.corpus, world.artifact, labels, {term: 1.0})[1] == 0


@pytest.mark.parametrize("term", TERMS)
def test_held_out_items_and_labels_have_no_influence(make_world: Any, random_world: Any, term: str) -> None:
    corpus = random_world.corpus
    poisoned = [[*corpus.sequence_of(user)[:-2].tolist(), 0, 0] for user in range(corpus.n_users)]
    other = make_world(poisoned, corpus.n_items)
    draw = np.random.default_rng(1)
    training = corpus.positions().split == 0
    hardness = []
    for world in (random_world, other):
        labels = {}
        for seed, teacher in enumerate("ab"):
            scores = np.random.default_rng(seed).normal(0, 2, (corpus.n_positions, corpus.n_items))
            scores[~training] = draw.normal(0, 5, scores[~training].shape)
            labels[teacher] = world.label(teacher, scores, 4)
        hardness.append(difficulty(world.corpus, world.artifact, labels, {term: 1.0}))
    np.testing.assert_array_equal(*hardness)


def test_the_order_of_label_rows_has_no_influence(random_world: Any) -> None:
    draw = np.random.default_rng(0)
    corpus = random_world.corpus
    scores = draw.normal(0, 2, (corpus.n_positions, corpus.n_items))
    first = {"t": random_world.label("t", scores, 4), "u": random_world.label("u", -scores, 4)}
    mixed = {
        name: random_world.label(name * 2, sign * scores, 4, rows=draw.permutation(corpus.n_positions))
        for name, sign in (("t", 1), ("u", -1))
    }
    for term in TERMS:
        wanted, found = (difficulty(corpus, random_world.artifact, labels, {term: 1.0}) for labels in (first, mixed))
        np.testing.assert_array_equal(wanted, found)


def test_difficulty_does_not_depend_on_how_the_work_falls_to_threads(make_world: Any) -> None:
    # Users with the same values in another order differ in the last bits of a sum at most, and a sum over several
    # row groups is put together in the order in which threads happen to end.
    draw = np.random.default_rng(0)
    users, length = 16, 20_000
    world = make_world(draw.integers(0, 7, (users, length)).tolist(), 7)
    one = draw.normal(0, 2, (length - 3, 7))
    held_out = np.zeros((2, 7))
    scores = np.concatenate([part for _ in range(users) for part in (draw.permutation(one), held_out)])
    labels = {"t": world.label("t", scores, 1)}
    found = [difficulty(world.corpus, world.artifact, labels, {"avg(ln(1 + entropy))": 1.0}) for _ in range(6)]
    for again in found[1:]:
        np.testing.assert_array_equal(again, found[0])


@pytest.mark.parametrize(
    "expression",
    [
        "avg(",
        "entropy",
        "avg(no_such_column)",
        "max(split)",
        "no_such_function(entropy)",
        "avg(entropy); drop table runs",
        "",
    ],
)
def test_an_expression_that_is_no_aggregate_of_numbers_is_named_with_its_key(told: Told, expression: str) -> None:
    with pytest.raises(UserError, match=r"^distill\.curriculum\.difficulty: ") as caught:
        told.difficulty(**{expression: 1.0})
    assert repr(expression) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "attack",
    [
        "(select count(*) from read_text('{file}'))",
        "(select count(*) from read_csv('{file}'))",
        "(select count(*) from '{file}')",
        "(select count(*) from glob('{folder}/*'))",
        "1) as term from labels); copy (select 1) to '{folder}/out.csv'; select (1",
        "(with x as (copy (select 1) to '{folder}/out.csv') select 1)",
        "(select count(*) from duckdb_secrets())",
        "count(*) + (select max(value) from pragma_storage_info('runs'))",
    ],
)
def test_an_expression_reads_the_views_and_nothing_else(told: Told, tmp_path: Path, attack: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("1\n2\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UserError, match=r"^distill\.curriculum\.difficulty: "):
        told.difficulty(**{attack.format(file=secret, folder=tmp_path): 1.0})
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "expression",
    [
        "unnest(list(entropy))",
        "unnest(if(count(*) > 4, [1, 2], []))",
        "avg(entropy))::double as term from labels group by all) --",
    ],
)
def test_an_expression_gives_one_value_per_user(told: Told, expression: str) -> None:
    with pytest.raises(UserError, match=r"^distill\.curriculum\.difficulty: "):
        told.difficulty(**{expression: 1.0})


def test_every_term_of_the_configuration_has_its_query() -> None:
    assert set(curriculum.TERMS) == set(get_args(Term))
