"""Labels belong to a user and a position: the loss against explicit dictionaries, whatever order rows are stored in."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ckd.stages.distill.holding import training_labels
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.teaching import Teaching, row_index
from ckd.stages.students.scores import FullScores
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError
from ckd.storage.labels import read_labels
from ckd.storage.vectors import read_vectors

Array = npt.NDArray[Any]
CPU = torch.device("cpu")
WIDTH = 5


def settings(**values: Any) -> DistillSettings:
    return DistillSettings.model_validate(values)


class Teachers:
    """Three teachers of a random world; scores are products of states and vectors."""

    def __init__(self, world: Any) -> None:
        self.world, self.corpus = world, world.corpus
        draw = np.random.default_rng(3)
        at = self.corpus.positions()
        self.rows = {
            "whole": np.arange(len(at)),
            "no user 4": np.flatnonzero(at.user != 4),
            "sparse": np.flatnonzero(draw.random(len(at)) < 0.4),
        }
        self.states = {name: draw.normal(0, 1, (len(at), WIDTH)).astype(np.float32) for name in self.rows}
        self.vectors = {name: draw.normal(0, 1, (self.corpus.n_items, WIDTH)).astype(np.float32) for name in self.rows}
        self.labels = {name: self.label(name, name, rows) for name, rows in self.rows.items()}

    def label(self, stored_as: str, name: str, rows: Array) -> Artifact:
        """Store some of a teacher's positions, in this order."""
        state, vectors = self.states[name], self.vectors[name]
        artifact: Artifact = self.world.label(stored_as, state @ vectors.T, 4, rows=rows, state=state, vectors=vectors)
        return artifact


@pytest.fixture
def teachers(random_world: Any) -> Teachers:
    return Teachers(random_world)


def training_places(corpus: Corpus) -> Array:
    return np.flatnonzero(corpus.positions().split == 0)


def taught(
    corpus: Corpus, labels: dict[str, Artifact], place: Array, logits: Array, option: DistillSettings
) -> tuple[Array, Array, Teaching]:
    teaching = Teaching.load(corpus, labels, option, CPU)
    scores = torch.tensor(logits, dtype=torch.float32)
    target = torch.from_numpy(corpus.positions().target[place].astype(np.int64))
    batch = torch.unique(target)
    value = teaching.losses(torch.from_numpy(place), FullScores(scores), batch)
    labelled = teaching.labelled_at(torch.from_numpy(place))
    return value.numpy(), labelled.numpy(), teaching


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max())
    result: Array = powers / powers.sum()
    return result


def tempered_kl(p: Array, q: Array, temperature: float, of_teacher: float = 1.0) -> float:
    p = p ** (1 / of_teacher)
    p, q = (cells ** (1 / temperature) / (cells ** (1 / temperature)).sum() for cells in (p, q))
    return float(temperature**2 * np.sum(p * np.log(p / q)))


def by_user_and_position(artifact: Artifact, corpus: Corpus) -> dict[tuple[int, int], dict[str, Any]]:
    """One teacher's training labels, each under the user and position that its row names."""
    block = read_labels(artifact, corpus)
    vectors = read_vectors(artifact)
    assert vectors is not None
    assert block.state is not None
    return {
        (int(block.user[row]), int(block.position[row])): {
            "stored": dict(zip(block.items[row].tolist(), np.exp(block.logprobs[row].astype(float)), strict=True)),
            "truth": float(np.exp(block.target_logprob[row].astype(float))),
            "scores": vectors.astype(float) @ block.state[row].astype(float),
        }
        for row in range(len(block))
        if block.split[row] == 0
    }


def surprise(scores: Array, items: list[int], left: set[int]) -> float:
    """Mean -log probability that these items are chosen one after the other among what is left of some."""
    values = []
    for item in items:
        if len(left) > 1:
            values.append(float(np.log(np.exp(scores[sorted(left)]).sum()) - scores[item]))
        left = left - {item}
    return float(np.mean(values))


def one_loss(
    name: str, told: dict[str, Any], scores: Array, batch_items: Array, option: DistillSettings, own_temperature: float
) -> float:
    """One loss of one teacher at one position, from its labels as dictionaries."""
    items, q = list(told["stored"]), softmax(scores)
    if name == "in_batch":
        p, q = softmax(told["scores"][batch_items]), softmax(scores[batch_items])
        return tempered_kl(p, q, option.temperature, own_temperature)
    if name == "rank":
        whole = option.rank_against == "catalogue"
        return surprise(scores, items, set(range(len(scores))) if whole else set(items))
    if name == "top_k_plus_student":
        items += [int(item) for item in np.argsort(-scores)[: option.student_items] if item not in told["stored"]]
    kept, own = softmax(told["scores"])[items], q[items]
    # No rest is less than what a float32 sum can leave, not even that of the whole catalogue.
    p, q = (np.append(cells, max(1 - cells.sum(), 1e-6)) for cells in (kept, own))
    return tempered_kl(p, q, option.temperature, own_temperature)


def brute_force(
    corpus: Corpus, labels: dict[str, Artifact], place: Array, logits: Array, option: DistillSettings
) -> tuple[list[float], list[float]]:
    """sum_p w_p KD_p and the gate sum_p w_p c_p^x s_p^y at each place; w_p of the default weighting."""
    x, y = option.weighting.gate_confidence, option.weighting.gate_consistency
    opinions = {name: by_user_and_position(artifact, corpus) for name, artifact in labels.items()}
    at = corpus.positions()
    batch_items = np.unique(at.target[place])
    totals, gates = [], []
    for n, scores in zip(place, logits, strict=True):
        key = (int(at.user[n]), int(at.position[n]))
        there = {name: told[key] for name, told in opinions.items() if key in told}
        losses, strengths, s = [], [], []
        for name, told in there.items():
            own = option.teacher_temperature.get(name, 1.0)
            losses.append(
                sum(
                    weight * one_loss(loss, told, scores.astype(float), batch_items, option, own)
                    for loss, weight in option.loss.items()
                )
            )
            shared = [
                sum(min(value, other["stored"].get(item, 0.0)) for item, value in told["stored"].items())
                for other in there.values()
                if other is not told
            ]
            s.append(float(np.mean(shared)) if shared else 1.0)
            strengths.append(max(told["truth"], 1e-12) * max(s[-1], 1e-12))
        w = [strength / sum(strengths) for strength in strengths]
        totals.append(sum(weight * loss for weight, loss in zip(w, losses, strict=True)))
        confident = [told["truth"] for told in there.values()]
        gates.append(sum(weight * c**x * one**y for weight, c, one in zip(w, confident, s, strict=True)))
    return totals, gates


OPTIONS = {
    "top_k": settings(loss={"top_k": 1.0}),
    "gated by confidence": settings(loss={"top_k": 1.0}, weighting={"gate_confidence": 1.0}),
    "gated by half of each": settings(loss={"top_k": 1.0}, weighting={"gate_confidence": 0.5, "gate_consistency": 0.5}),
    "in_batch": settings(loss={"in_batch": 1.0}),
    "both, weighed, softened": settings(loss={"top_k": 0.5, "in_batch": 2.0}, temperature=2.0),
    "top_k_plus_student": settings(loss={"top_k_plus_student": 1.0}, student_items=3, temperature=1.5),
    "more items of the student than there are": settings(loss={"top_k_plus_student": 1.0}, student_items=50),
    "rank": settings(loss={"rank": 1.0}, temperature=3.0),
    "rank among the listed": settings(loss={"rank": 1.0}, rank_against="listed"),
    "all, one teacher softened": settings(
        loss={"rank": 0.1, "top_k_plus_student": 0.2, "top_k": 0.3, "in_batch": 0.4},
        teacher_temperature={"whole": 3.0, "sparse": 0.5},
        temperature=2.0,
    ),
}


@pytest.mark.parametrize("option", OPTIONS.values(), ids=list(OPTIONS))
@pytest.mark.parametrize("names", [("whole",), ("sparse",), ("whole", "no user 4"), ("whole", "no user 4", "sparse")])
def test_the_loss_is_that_of_each_users_own_labels(
    teachers: Teachers, names: tuple[str, ...], option: DistillSettings
) -> None:
    corpus = teachers.corpus
    labels = {name: teachers.labels[name] for name in names}
    draw = np.random.default_rng(7)
    place = draw.permutation(training_places(corpus))[:25]
    logits = draw.normal(0, 2, (len(place), corpus.n_items))
    value, labelled, teaching = taught(corpus, labels, place, logits, option)
    wanted, gate = brute_force(corpus, labels, place, logits, option)
    np.testing.assert_allclose(value, wanted, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(teaching.gate[place], gate, rtol=1e-5, atol=1e-9)
    known = [set(by_user_and_position(artifact, corpus)) for artifact in labels.values()]
    at = corpus.positions()
    expected = [any((int(at.user[n]), int(at.position[n])) in one for one in known) for n in place]
    assert labelled.tolist() == expected
    assert teaching.labelled[place].tolist() == expected
    if names == ("sparse",):
        assert not all(expected)


def test_the_order_of_the_stored_rows_changes_nothing(teachers: Teachers) -> None:
    corpus = teachers.corpus
    draw = np.random.default_rng(8)
    place = training_places(corpus)
    logits = draw.normal(0, 2, (len(place), corpus.n_items))
    option = OPTIONS["all, one teacher softened"]
    for name, rows in teachers.rows.items():
        mixed = teachers.label(f"{name} mixed", name, draw.permutation(rows))
        stored, shuffled = (read_labels(labels, corpus) for labels in (teachers.labels[name], mixed))
        assert not np.array_equal(stored.position, shuffled.position)
        first, _, one = taught(corpus, {"t": teachers.labels[name]}, place, logits, option)
        second, _, other = taught(corpus, {"t": mixed}, place, logits, option)
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(one.gate, other.gate)


def test_positions_without_any_label_add_nothing(teachers: Teachers) -> None:
    corpus = teachers.corpus
    at = corpus.positions()
    place = np.flatnonzero((at.split == 0) & (at.user == 4))
    assert len(place)
    value, labelled, teaching = taught(
        corpus,
        {"t": teachers.labels["no user 4"]},
        place,
        np.random.default_rng(0).normal(size=(len(place), corpus.n_items)),
        OPTIONS["top_k"],
    )
    assert not value.any()
    assert not labelled.any()
    assert not teaching.gate[place].any()


def test_labels_of_held_out_positions_are_not_loaded(teachers: Teachers) -> None:
    corpus = teachers.corpus
    block = training_labels(teachers.labels["whole"], corpus, OPTIONS["top_k"])
    assert set(block.split.tolist()) == {0}
    assert np.flatnonzero(row_index(block, corpus) >= 0).tolist() == training_places(corpus).tolist()


def test_the_states_score_any_item_as_the_teacher_does(teachers: Teachers) -> None:
    corpus = teachers.corpus
    teaching = Teaching.load(corpus, {"t": teachers.labels["no user 4"]}, OPTIONS["in_batch"], CPU)
    (opinion,) = teaching._opinions
    told = by_user_and_position(teachers.labels["no user 4"], corpus)
    at = corpus.positions()
    items = torch.tensor([3, 0, 7])
    checked = 0
    for place, row in enumerate(opinion.row.tolist()):
        key = (int(at.user[place]), int(at.position[place]))
        assert (row >= 0) == (key in told)
        if row >= 0:
            scores = opinion.scores(torch.tensor([row]), items)[0].numpy()
            np.testing.assert_allclose(scores, told[key]["scores"][items.numpy()], rtol=1e-5, atol=1e-6)
            own = torch.tensor([[place % corpus.n_items, 5]])
            logprobs = opinion.scores_of(torch.tensor([row]), own)[0].numpy()
            wanted = np.log(softmax(told[key]["scores"]))[own[0].numpy()]
            np.testing.assert_allclose(logprobs, wanted, rtol=1e-5, atol=1e-5)
            stored = [item in told[key]["stored"] for item in own[0].tolist()]
            assert opinion.stores(torch.tensor([row]), own)[0].tolist() == stored
            checked += 1
    assert checked == len(told)


def test_items_that_may_be_no_better_than_what_is_cut_off_are_in_no_order(teachers: Teachers) -> None:
    corpus = teachers.corpus
    place = training_places(corpus)
    logits = np.random.default_rng(1).normal(0, 2, (len(place), corpus.n_items))
    scores = np.zeros((corpus.n_positions, corpus.n_items))
    scores[:, 9] = 3.0
    for best in (1, 2):  # stored: item 9 and, where it is scored, item 4; then the first of many that are all alike
        labels = {"t": teachers.world.label(f"t{best}", scores, 4)}
        value, _, _ = taught(corpus, labels, place, logits, OPTIONS["rank"])
        wanted = [surprise(row, [9, 4][:best], set(range(corpus.n_items))) for row in logits]
        np.testing.assert_allclose(value, wanted, rtol=1e-4)
        scores[:, 4] = 2.0


def test_gradients_reach_the_student_through_every_teacher(teachers: Teachers) -> None:
    corpus = teachers.corpus
    place = torch.from_numpy(training_places(corpus))
    logits = torch.randn(len(place), corpus.n_items, requires_grad=True, generator=torch.Generator().manual_seed(0))
    teaching = Teaching.load(corpus, teachers.labels, OPTIONS["all, one teacher softened"], CPU)
    target = torch.from_numpy(corpus.positions().target[place.numpy()].astype(np.int64))
    value = teaching.losses(place, FullScores(logits), torch.unique(target))
    labelled = teaching.labelled_at(place)
    value.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad.abs().sum(1) > 0).equal(labelled)


@pytest.mark.parametrize(("share", "n"), [(0.25, 4), (0.01, 1), (0.99, 18)])
def test_teachers_are_heard_at_a_share_of_the_labelled_positions_each_of_which_has_its_turn(
    teachers: Teachers, share: float, n: int
) -> None:
    some = {"t": teachers.labels["no user 4"]}
    teaching = Teaching.load(teachers.corpus, some, settings(taught_share=share), CPU)
    labelled, without = (torch.from_numpy(np.flatnonzero(flag)) for flag in (teaching.labelled, ~teaching.labelled))
    place = torch.cat([without[:9], labelled[:18]])
    torch.manual_seed(0)
    samples = [teaching.sample(place) for _ in range(200)]
    for sample in samples:
        assert sample is not None
        assert sample.rows.unique().equal(sample.rows), "ascending, none twice"
        assert (len(sample.rows), sample.scale) == (n, 18 / n)
    drawn = torch.cat([sample.rows for sample in samples if sample is not None])
    assert drawn.unique().equal(9 + torch.arange(18))


def test_of_positions_without_a_label_none_is_drawn(teachers: Teachers) -> None:
    teaching = Teaching.load(teachers.corpus, {"t": teachers.labels["no user 4"]}, settings(taught_share=0.5), CPU)
    sample = teaching.sample(torch.from_numpy(np.flatnonzero(~teaching.labelled)))
    assert sample is not None
    assert len(sample.rows) == 0


def test_nothing_is_drawn_where_teachers_are_heard_everywhere(teachers: Teachers) -> None:
    teaching = Teaching.load(teachers.corpus, {"t": teachers.labels["whole"]}, settings(), CPU)
    before = torch.get_rng_state()
    assert teaching.sample(torch.arange(18)) is None
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("lacking", ["state", "vectors"])
def test_losses_that_score_items_are_refused_in_one_line_without_states(teachers: Teachers, lacking: str) -> None:
    corpus = teachers.corpus
    parts: dict[str, Any] = {
        "state": np.zeros((corpus.n_positions, WIDTH)),
        "vectors": np.zeros((corpus.n_items, WIDTH)),
    }
    parts[lacking] = None
    bare = teachers.world.label("bare", np.zeros((corpus.n_positions, corpus.n_items)), 4, **parts)
    with pytest.raises(UserError, match=r"distill\.loss\.in_batch needs the states of teacher bare.*ckd precompute"):
        Teaching.load(corpus, {"whole": teachers.labels["whole"], "bare": bare}, OPTIONS["in_batch"], CPU)
    with pytest.raises(UserError, match=r"distill\.loss\.top_k_plus_student needs .* or leave top_k_plus_student out$"):
        Teaching.load(corpus, {"bare": bare}, OPTIONS["top_k_plus_student"], CPU)
    with pytest.raises(UserError, match=r"needs .* or leave in_batch and top_k_plus_student out$"):
        Teaching.load(corpus, {"bare": bare}, OPTIONS["all, one teacher softened"], CPU)
    for name in ("top_k", "rank"):
        Teaching.load(corpus, {"bare": bare}, OPTIONS[name], CPU)


def test_the_order_in_which_losses_stand_in_the_file_changes_no_bit(teachers: Teachers) -> None:
    corpus = teachers.corpus
    place = training_places(corpus)
    logits = np.random.default_rng(1).normal(0, 2, (len(place), corpus.n_items))
    weights = {"rank": 0.1, "in_batch": 0.7, "top_k": 0.3, "top_k_plus_student": 0.9}
    found = [
        taught(corpus, teachers.labels, place, logits, settings(loss=loss))[0]
        for loss in (weights, dict(reversed(weights.items())))
    ]
    np.testing.assert_array_equal(*found)


def test_a_teacher_that_labelled_no_training_position_is_refused_in_one_line(teachers: Teachers) -> None:
    corpus = teachers.corpus
    held_out = np.flatnonzero(corpus.positions().split != 0)
    scores = np.zeros((corpus.n_positions, corpus.n_items))
    labels = {"late": teachers.world.label("late", scores, 4, rows=held_out)}
    with pytest.raises(UserError, match=r"teacher late cover no training position; add train to labels\.splits"):
        Teaching.load(corpus, labels, OPTIONS["top_k"], CPU)
