"""What the losses of a training step are made of: padding, the truth, the teachers, weights and the gate."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_trainings import settings, student, taught, told_apart, trained, truth_losses

from ckd.stages.batching import training_windows
from ckd.stages.distill.train import step_losses
from ckd.stages.students.contract import side_by_side
from ckd.stages.students.scores import FullScores
from ckd.storage.artifact import Artifact
from ckd.storage.labels import read_labels


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_padding_takes_no_part_in_the_loss(random_world: Any, batch_size: int) -> None:
    """With a learning rate of nothing the curve holds the loss of the initial weights."""
    corpus = random_world.corpus
    network, curve = trained(corpus, settings(epochs=1, batch_size=batch_size), learning_rate=1e-12)
    assert curve[0]["loss"] == pytest.approx(truth_losses(network, corpus).mean(), rel=1e-5)


@pytest.mark.parametrize(("batch_size", "start"), [(1, 1.0), (5, 1.0), (1000, 1.0), (5, 0.5)])
def test_the_loss_is_that_of_section_5(random_world: Any, batch_size: int, start: float) -> None:
    """(1 - a) CE + a g KD at every served position, the gate scaled to mean 1 over the labelled ones of these."""
    corpus = random_world.corpus
    draw = np.random.default_rng(1)
    at = corpus.positions()
    some = np.flatnonzero(draw.random(len(at)) < 0.6)
    labels = {"t": random_world.label("t", draw.normal(0, 2, (len(at), corpus.n_items)), 4, rows=some)}
    option = settings(
        epochs=1,
        batch_size=batch_size,
        alpha=0.3,
        loss={"top_k": 1.0},
        temperature=2.0,
        weighting={"gate_confidence": 1.0},
        curriculum={"pacing": "linear", "start": start, "warmup": 3},
    )
    hardness = draw.permutation(corpus.n_users) / corpus.n_users
    network, curve = trained(corpus, option, taught(random_world, labels, option, hardness), learning_rate=1e-12)

    block = read_labels(labels["t"], corpus)
    row_of = {(int(u), int(p)): row for row, (u, p) in enumerate(zip(block.user, block.position, strict=True))}
    trainable = np.unique(at.user[at.split == 0])
    easiest = trainable[np.argsort(hardness[trainable])][: int(np.ceil(start * len(trainable)))]
    served = np.isin(at.user[at.split == 0], easiest)
    assert served.all() == (start == 1)
    training = np.flatnonzero(at.split == 0)[served]
    rows = [row_of.get((int(at.user[n]), int(at.position[n])), -1) for n in training]
    gate = np.array([np.exp(float(block.target_logprob[row])) if row >= 0 else 0.0 for row in rows])
    gate /= gate[np.array(rows) >= 0].mean()
    truth, teacher = [], []
    told = [[value for value, heard in zip(of, served, strict=True) if heard] for of in told_apart(network, corpus)]
    for row, g, logprobs, target in zip(rows, gate, *told, strict=True):
        alpha = 0.3 if row >= 0 else 0.0
        truth.append((1 - alpha) * -logprobs[target])
        if row >= 0:
            kept, own = np.exp(block.logprobs[row].astype(float)), np.exp(logprobs[block.items[row]])
            p, q = (np.sqrt(np.append(cells, 1 - cells.sum())) for cells in (kept, own))
            p, q = p / p.sum(), q / q.sum()
            teacher.append(alpha * g * 4 * np.sum(p * np.log(p / q)))
    assert -1 in rows
    assert curve[0]["truth_loss"] == pytest.approx(np.mean(truth), rel=1e-5)
    assert curve[0]["teacher_loss"] == pytest.approx(np.sum(teacher) / len(training), rel=1e-4)
    assert curve[0]["loss"] == pytest.approx(curve[0]["truth_loss"] + curve[0]["teacher_loss"])


def two_teachers(world: Any) -> dict[str, Artifact]:
    """Each with states and a label at some of the positions only."""
    draw, n, n_items = np.random.default_rng(2), world.corpus.n_positions, world.corpus.n_items
    labels = {}
    for name, some in (("a", draw.random(n) < 0.6), ("b", draw.random(n) < 0.6)):
        state, vectors = draw.normal(0, 1, (n, 4)), draw.normal(0, 1, (n_items, 4))
        labels[name] = world.label(name, state @ vectors.T, 4, rows=np.flatnonzero(some), state=state, vectors=vectors)
    return labels


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 1.0), (2.0, 1.0), (1.0, 0.3)])
def test_scores_that_are_never_written_down_teach_the_same(random_world: Any, temperature: float, share: float) -> None:
    """In closed form by blocks, and put together from the scores of the whole catalogue: values and gradients."""
    corpus, draw = random_world.corpus, np.random.default_rng(2)
    option = settings(temperature=temperature, taught_share=share, weighting={"gate_confidence": 1.0})
    lesson = taught(random_world, two_teachers(random_world), option)
    gate = torch.from_numpy(lesson.teaching.gate).float()
    network, [domain] = student([corpus]), side_by_side([corpus])
    found = []
    for whole in (False, True):
        step = network.step(domain, training_windows(corpus, 8), draw)
        scores = step.scores
        if whole:
            scores = FullScores(scores.states @ scores.items.T)
        weight = torch.linspace(0, 1, len(step.place))
        torch.manual_seed(0)
        truth, teacher, count = step_losses(replace(step, scores=scores, weight=weight), lesson, gate, 0.7)
        gradient = torch.autograd.grad(truth + teacher, list(network.parameters()))
        found.append((truth, teacher, count, *gradient))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
