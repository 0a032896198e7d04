"""LightGCN against its formulas in dense float64, and its rule for the positions of one user."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from ckd.stages.batching import training_windows
from ckd.stages.distill.losses import in_batch
from ckd.stages.distill.train import step_losses
from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import Domain, Step
from ckd.stages.students.lightgcn.network import training_edges
from ckd.storage.corpus import Corpus

SEQUENCES = [[0, 1, 2, 3, 4], [1, 1, 0, 5, 2, 3], [4, 2, 5], [3, 0, 1, 0, 2, 4, 5]]
EDGES = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 5), (2, 4), (3, 0), (3, 1), (3, 2), (3, 3)]


@pytest.fixture
def corpus(make_corpus: Any) -> Corpus:
    made: Corpus = make_corpus(SEQUENCES, [f"item {code}" for code in range(7)])
    return made


def network(corpus: Corpus, **settings: Any) -> Any:
    torch.manual_seed(0)
    module = STUDENTS.load("lightgcn")
    built = module.build(module.Settings(**{"hidden": 4, **settings}), [Domain(0, corpus)])
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(10)
    return built


def step_of(built: Any, corpus: Corpus) -> Step:
    step: Step = built.step(Domain(0, corpus), training_windows(corpus, built.max_length), np.random.default_rng(0))
    return step


def test_edges_are_the_training_items_of_each_user_once(corpus: Corpus) -> None:
    assert list(zip(*(ends.tolist() for ends in training_edges(corpus)), strict=True)) == EDGES


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_propagation_is_the_papers_matrix_form(corpus: Corpus, layers: int) -> None:
    """E^(k+1) = D^-1/2 A D^-1/2 E^(k) on users and items together (equation 8), mean over k (equation 4)."""
    built = network(corpus, layers=layers)
    size = corpus.n_users + corpus.n_items
    adjacent = torch.zeros(size, size, dtype=torch.float64)
    for user, item in EDGES:
        adjacent[user, corpus.n_users + item] = adjacent[corpus.n_users + item, user] = 1
    degree = adjacent.sum(1)
    scale = torch.where(degree > 0, degree, 1) ** -0.5
    normalised = scale.unsqueeze(1) * adjacent * scale
    steps = [torch.cat([built.users.weight, built.items.weight]).double()]
    for _ in range(layers):
        steps.append(normalised @ steps[-1])
    wanted = torch.stack(steps).mean(0)
    torch.testing.assert_close(torch.cat(built.propagated()).double(), wanted, atol=1e-5, rtol=1e-5)


def test_the_gradient_of_propagation_is_exact(corpus: Corpus) -> None:
    built = network(corpus).double()
    built.forward = lambda: torch.cat(built.propagated())

    def final(users: Tensor, items: Tensor) -> Tensor:
        vectors: Tensor = torch.func.functional_call(built, {"users.weight": users, "items.weight": items}, ())
        return vectors

    assert torch.autograd.gradcheck(final, tuple(p.detach().clone().requires_grad_() for p in built.parameters()))


def test_positions_of_a_user_share_the_scores_of_the_users_vector(corpus: Corpus) -> None:
    built = network(corpus)
    step = step_of(built, corpus)
    users, items = built.propagated()
    at = corpus.positions()
    assert (at.split[step.place] == 0).all() and len(step.place) == (at.split == 0).sum()
    scores = step.scores.among(torch.arange(7))
    torch.testing.assert_close(scores, users[torch.from_numpy(at.user[step.place].astype(np.int64))] @ items.T)
    assert step.target.tolist() == at.target[step.place].tolist()


@pytest.mark.parametrize("recency", [1.0, 0.5])
def test_positions_count_by_how_recent_they_are_and_the_first_item_before_them(corpus: Corpus, recency: float) -> None:
    built = network(corpus, recency=recency)
    step = step_of(built, corpus)
    at = corpus.positions()
    last = corpus.lengths[at.user[step.place]] - 3
    assert step.weight is not None and step.own is not None
    torch.testing.assert_close(step.weight.tolist(), (recency ** (last - at.position[step.place])).tolist())
    users, items = built.propagated()
    logprobs = (users @ items.T).log_softmax(1)
    trained = [(user, sequence) for user, sequence in enumerate(SEQUENCES) if len(sequence) > 3]
    torch.testing.assert_close(step.own.tolist(), [-logprobs[user, items[0]].item() for user, items in trained])
    assert step.own_weight is not None
    torch.testing.assert_close(step.own_weight.tolist(), [recency ** (len(items) - 3) for _, items in trained])
    # A weighted mean: of a student that finds all items alike, log of their number whatever the weights.
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.zero_()
    total, _, count = step_losses(step_of(built, corpus), None, None, 0.0)
    assert float((total / count).detach()) == pytest.approx(np.log(logprobs.shape[1]), rel=1e-5)


def test_at_plain_mean_the_loss_is_that_of_every_training_interaction(corpus: Corpus) -> None:
    built = network(corpus)
    truth, _, count = step_losses(step_of(built, corpus), None, None, 0.0)
    users, items = built.propagated()
    logprobs = (users @ items.T).log_softmax(1)
    pairs = [(u, i) for u, sequence in enumerate(SEQUENCES) if len(sequence) > 3 for i in sequence[:-2]]
    assert count == len(pairs)
    torch.testing.assert_close(truth, -sum(logprobs[user, item] for user, item in pairs))


@pytest.mark.parametrize("recency", [1.0, 0.6])
def test_labels_of_all_positions_teach_what_their_mean_label_does(recency: float) -> None:
    """sum_t w_t KL(p_t || q) = W KL(p || q) + sum_t w_t KL(p_t || p), whatever q: values and gradients."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randn(5, 8, generator=draw, dtype=torch.float64) * 2
    weight = recency ** torch.arange(4.0, -1, -1, dtype=torch.float64)
    mean = (weight.unsqueeze(1) * labels.softmax(1)).sum(0) / weight.sum()
    apart = (weight * in_batch(mean.log().expand(5, -1), labels, 1.0)).sum()
    assert apart > 0.1
    for _ in range(3):
        student = torch.randn(1, 8, generator=draw, dtype=torch.float64, requires_grad=True)
        each = (weight * in_batch(student.expand(5, -1), labels, 1.0)).sum()
        pooled = weight.sum() * in_batch(student, mean.log().unsqueeze(0), 1.0).sum()
        torch.testing.assert_close(each, pooled + apart)
        torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (each, pooled)))


def test_the_validation_item_is_an_edge_of_neither_split(corpus: Corpus, make_corpus: Any) -> None:
    other = make_corpus([[*sequence[:-2], 6, 6] for sequence in SEQUENCES], [f"item {code}" for code in range(7)])
    users = np.arange(4, dtype=np.int32)
    scores = []
    for world in (corpus, other):
        score = network(world).scorer(Domain(0, world))
        scores += [score(users, (world.lengths - held_out).astype(np.int32)) for held_out in (1, 2)]
    assert all(torch.equal(one, scores[0]) for one in scores[1:])


@pytest.mark.parametrize("users", [[0, 1, 2, 3], [3, 1, 3]])
def test_training_items_come_behind_all_others_unless_repeats_are_allowed(corpus: Corpus, users: list[int]) -> None:
    position = (corpus.lengths[users] - 1).astype(np.int32)
    free, bound = (
        network(corpus, repeats=repeats).scorer(Domain(0, corpus))(np.array(users, np.int32), position)
        for repeats in (True, False)
    )
    for row, user in enumerate(users):
        own = [item for edge, item in EDGES if edge == user]
        other = [item for item in range(7) if item not in own]
        assert torch.equal(bound[row, other], free[row, other])
        assert bound[row, own].max() < bound[row, other].min()
        assert torch.equal(bound[row, own].argsort(), free[row, own].argsort())
    assert torch.isfinite(bound).all()


def test_a_history_that_ends_within_the_graph_is_refused(corpus: Corpus) -> None:
    score = network(corpus).scorer(Domain(0, corpus))
    with pytest.raises(ValueError, match="the later ones are edges"):
        score(np.array([0, 1], np.int32), np.array([3, 3], np.int32))


def test_all_training_positions_are_served(corpus: Corpus, make_corpus: Any) -> None:
    assert network(corpus).max_length == 4
    shortest = make_corpus([[0, 1, 2]], ["a", "b", "c"])
    assert network(shortest).max_length == 1


def test_a_joint_one_is_refused_in_one_sentence() -> None:
    with pytest.raises(ValidationError, match="lightgcn is per_domain only: the graphs of two domains share neither"):
        STUDENTS.load("lightgcn").Settings(scope="joint")
