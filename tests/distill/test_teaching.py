"""Labels belong to a user and a position: the loss against explicit dictionaries, whatever order rows are stored in."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.teaching import Teaching, row_index, training_labels
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
    value, labelled = teaching.losses(torch.from_numpy(place), FullScores(scores), target)
    return value.numpy(), labelled.numpy(), teaching


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max())
    result: Array = powers / powers.sum()
    return result


def tempered_kl(p: Array, q: Array, temperature: float) -> float:
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


def brute_force(
    corpus: Corpus, labels: dict[str, Artifact], place: Array, logits: Array, option: DistillSettings
) -> tuple[list[float], list[float]]:
    """sum_p w_p KD_p and the gate sum_p w_p c_p^x s_p^y at each place; w_p of the default weighting."""
    x, y = option.weighting.gate_confidence, option.weighting.gate_consistency
    opinions = [by_user_and_position(artifact, corpus) for artifact in labels.values()]
    at = corpus.positions()
    batch_items = np.unique(at.target[place])
    totals, gates = [], []
    for n, scores in zip(place, logits, strict=True):
        there = [told[key] for told in opinions if (key := (int(at.user[n]), int(at.position[n]))) in told]
        q = softmax(scores.astype(float))
        losses, strengths, s = [], [], []
        for told in there:
            items = list(told["stored"])
            kept, own = np.array(list(told["stored"].values())), q[items]
            top_k = tempered_kl(np.append(kept, 1 - kept.sum()), np.append(own, 1 - own.sum()), option.temperature)
            p_batch, q_batch = softmax(told["scores"][batch_items]), softmax(scores[batch_items].astype(float))
            in_batch = tempered_kl(p_batch, q_batch, option.temperature)
            losses.append(option.loss.get("top_k", 0) * top_k + option.loss.get("in_batch", 0) * in_batch)
            shared = [
                sum(min(value, other["stored"].get(item, 0.0)) for item, value in told["stored"].items())
                for other in there
                if other is not told
            ]
            s.append(float(np.mean(shared)) if shared else 1.0)
            strengths.append(max(told["truth"], 1e-12) * max(s[-1], 1e-12))
        w = [strength / sum(strengths) for strength in strengths]
        totals.append(sum(weight * loss for weight, loss in zip(w, losses, strict=True)))
        gates.append(sum(weight * told["truth"] ** x * one**y for weight, told, one in zip(w, there, s, strict=True)))
    return totals, gates


OPTIONS = {
    "top_k": settings(loss={"top_k": 1.0}),
    "gated by confidence": settings(loss={"top_k": 1.0}, weighting={"gate_confidence": 1.0}),
    "gated by half of each": settings(loss={"top_k": 1.0}, weighting={"gate_confidence": 0.5, "gate_consistency": 0.5}),
    "in_batch": settings(loss={"in_batch": 1.0}),
    "both, weighed, softened": settings(loss={"top_k": 0.5, "in_batch": 2.0}, temperature=2.0),
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
    option = OPTIONS["both, weighed, softened"]
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
            checked += 1
    assert checked == len(told)


def test_gradients_reach_the_student_through_every_teacher(teachers: Teachers) -> None:
    corpus = teachers.corpus
    place = torch.from_numpy(training_places(corpus))
    logits = torch.randn(len(place), corpus.n_items, requires_grad=True, generator=torch.Generator().manual_seed(0))
    teaching = Teaching.load(corpus, teachers.labels, OPTIONS["both, weighed, softened"], CPU)
    target = torch.from_numpy(corpus.positions().target[place.numpy()].astype(np.int64))
    value, labelled = teaching.losses(place, FullScores(logits), target)
    value.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad.abs().sum(1) > 0).equal(labelled)


@pytest.mark.parametrize("lacking", ["state", "vectors"])
def test_in_batch_without_states_is_refused_in_one_line(teachers: Teachers, lacking: str) -> None:
    corpus = teachers.corpus
    parts: dict[str, Any] = {
        "state": np.zeros((corpus.n_positions, WIDTH)),
        "vectors": np.zeros((corpus.n_items, WIDTH)),
    }
    parts[lacking] = None
    bare = teachers.world.label("bare", np.zeros((corpus.n_positions, corpus.n_items)), 4, **parts)
    with pytest.raises(UserError, match=r"distill\.loss\.in_batch needs the states of teacher bare.*ckd precompute"):
        Teaching.load(corpus, {"whole": teachers.labels["whole"], "bare": bare}, OPTIONS["in_batch"], CPU)
    Teaching.load(corpus, {"bare": bare}, OPTIONS["top_k"], CPU)


def test_a_teacher_that_labelled_no_training_position_is_refused_in_one_line(teachers: Teachers) -> None:
    corpus = teachers.corpus
    held_out = np.flatnonzero(corpus.positions().split != 0)
    scores = np.zeros((corpus.n_positions, corpus.n_items))
    labels = {"late": teachers.world.label("late", scores, 4, rows=held_out)}
    with pytest.raises(UserError, match=r"teacher late cover no training position; add train to labels\.splits"):
        Teaching.load(corpus, labels, OPTIONS["top_k"], CPU)
