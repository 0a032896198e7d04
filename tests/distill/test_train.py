"""Training on worlds whose right answer is known: what is learned, from what, and when it stops."""

from typing import Any, get_args

import numpy as np
import pytest
import torch
from small_trainings import Array, settings, sizes_of, student, taught, trained, truth_losses

from ckd.stages.distill.settings import LossName
from ckd.stages.distill.train import train
from ckd.stages.evaluate.metrics import metrics
from ckd.stages.evaluate.ranking import rank_targets
from ckd.stages.students.contract import Domain, side_by_side
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError

Weights = dict[str, torch.Tensor]
N_ITEMS = 12


def weights(network: Any) -> Weights:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one: Any, other: Any) -> bool:
    left, right = weights(one), weights(other)
    return all(torch.equal(left[name], right[name]) for name in left)


def recall_at_1(network: Any, corpus: Corpus, split: str = "test") -> float:
    return float((rank_targets(network.scorer(Domain(0, corpus)), corpus, split) == 1).mean())


def successor(n_items: int) -> Array:
    """What follows each item in a world without chance: one cycle through all items."""
    order = np.random.default_rng(0).permutation(n_items)
    follows = np.empty(n_items, np.int64)
    follows[order] = np.roll(order, -1)
    return follows


def sequences(users: int, n_items: int, chance: float = 0.0, seed: int = 0) -> list[list[int]]:
    """Each item is followed by its successor, but for a share of surprises; the two held-out items are never one."""
    draw, follows = np.random.default_rng(seed), successor(n_items)
    made = []
    for _ in range(users):
        sequence = [int(draw.integers(n_items))]
        length = int(draw.integers(4, 10))
        for place in range(1, length):
            surprise = place < length - 2 and draw.random() < chance
            sequence.append(int(draw.integers(n_items)) if surprise else int(follows[sequence[-1]]))
        made.append(sequence)
    return made


def last_items(corpus: Corpus) -> Array:
    at = corpus.positions()
    items: Array = corpus.sequence[corpus.offsets[at.user] + at.position - 1]
    return items


def perfect_labels(world: Any, name: str = "oracle") -> Artifact:
    """A teacher that knows the successor of every item."""
    n_items = world.corpus.n_items
    state = np.eye(n_items)[last_items(world.corpus)]
    vectors = np.zeros((n_items, n_items))
    vectors[successor(n_items), np.arange(n_items)] = 9.0
    labels: Artifact = world.label(name, state @ vectors.T, 5, state=state, vectors=vectors)
    return labels


@pytest.fixture
def world(make_world: Any) -> Any:
    return make_world(sequences(60, N_ITEMS), N_ITEMS)


def test_a_student_learns_a_world_without_chance(world: Any) -> None:
    network, curve = trained(world.corpus, settings(epochs=25))
    assert recall_at_1(network, world.corpus) > 0.95
    assert curve[-1]["truth_loss"] < 0.1 * curve[0]["truth_loss"]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(world: Any) -> None:
    option = settings(epochs=2)
    lesson = taught(world, {"oracle": perfect_labels(world)}, option)
    for told in (None, lesson):
        first, again, other = (trained(world.corpus, option, told, seed, dropout=0.3)[0] for seed in (1, 1, 2))
        assert same(first, again)
        assert not same(first, other)


def test_which_positions_are_taught_follows_from_the_seed(world: Any) -> None:
    labels = {"oracle": perfect_labels(world)}
    some, all_of_them = settings(epochs=1, taught_share=0.3), settings(epochs=1)
    first, again, other = (
        trained(world.corpus, option, taught(world, labels, option), seed=1)[0] for option in (some, some, all_of_them)
    )
    assert same(first, again)
    assert not same(first, other)


def test_the_seed_of_the_batches_alone_changes_the_weights(world: Any) -> None:
    results = []
    for seed in (1, 2):
        network = student([world.corpus], seed=0)
        train(network, side_by_side([world.corpus]), [None], sizes_of(), settings(epochs=1), seed)
        results.append(network)
    assert not same(*results)


@pytest.mark.parametrize("loss", get_args(LossName))
def test_a_perfect_teacher_makes_more_of_few_truths(make_world: Any, loss: str) -> None:
    noisy = make_world(sequences(40, 20, chance=0.7), 20)
    option = settings(epochs=15, alpha=0.9, loss={loss: 1.0})
    alone, _ = trained(noisy.corpus, option)
    distilled, _ = trained(noisy.corpus, option, taught(noisy, {"oracle": perfect_labels(noisy)}, option))
    assert recall_at_1(distilled, noisy.corpus) > recall_at_1(alone, noisy.corpus) + 0.25


def test_alpha_zero_is_training_on_the_truth_alone(world: Any) -> None:
    option = settings(alpha=0.0, epochs=30, patience=1)
    alone, curve = trained(world.corpus, option, dropout=0.2)
    lesson = taught(world, {"oracle": perfect_labels(world)}, option)
    distilled, other = trained(world.corpus, option, lesson, dropout=0.2)
    assert [row["ndcg@10"] for row in curve] == [row["ndcg@10"] for row in other]
    assert [row["loss"] for row in curve] == [row["loss"] for row in other]
    assert len(curve) < 30
    assert same(alone, distilled)


def test_alpha_one_never_looks_at_the_truth_where_there_is_a_label(world: Any) -> None:
    option = settings(alpha=1.0, epochs=2, weighting={"confidence": "none"}, loss={"top_k": 1.0})
    lesson = taught(world, {"oracle": perfect_labels(world)}, option)
    _, curve = trained(world.corpus, option, lesson)
    assert [row["truth_loss"] for row in curve] == [0, 0]
    assert all(row["teacher_loss"] > 0 for row in curve)


def test_where_no_teacher_has_a_label_the_whole_weight_is_on_the_truth(world: Any) -> None:
    """One labelled user: everybody else's positions are trained on as if there were no teacher."""
    corpus = world.corpus
    option = settings(alpha=1.0, epochs=1, loss={"top_k": 1.0})
    scores = np.zeros((corpus.n_positions, corpus.n_items))
    at = corpus.positions()
    labels = {"t": world.label("t", scores, 3, rows=np.flatnonzero(at.user == 0))}
    network, curve = trained(corpus, option, taught(world, labels, option), learning_rate=1e-12)
    truth = truth_losses(network, corpus)
    unlabelled = at.user[at.split == 0] != 0
    assert curve[0]["truth_loss"] == pytest.approx((truth * unlabelled).mean(), rel=1e-5)


def test_the_weights_of_the_best_epoch_are_kept(world: Any) -> None:
    network, curve = trained(world.corpus, settings(epochs=60, patience=3), learning_rate=0.1)
    values = [row["ndcg@10"] for row in curve]
    best = 1 + int(np.argmax(values))
    assert len(curve) == best + 3 < 60
    ranks = rank_targets(network.scorer(Domain(0, world.corpus)), world.corpus, "valid")
    assert metrics(ranks, [10])["ndcg@10"] == values[best - 1]
    shorter, _ = trained(world.corpus, settings(epochs=best, patience=100), learning_rate=0.1)
    assert same(network, shorter)


def test_the_warm_up_of_a_curriculum_does_not_count_towards_patience(world: Any) -> None:
    frozen = {"epochs": 30, "patience": 2, "loss": {"top_k": 1.0}}
    labels = {"oracle": perfect_labels(world)}
    lengths = {}
    for pacing in ("linear", "none"):
        option = settings(**frozen, curriculum={"pacing": pacing, "warmup": 6})
        lengths[pacing] = len(trained(world.corpus, option, taught(world, labels, option), learning_rate=1e-12)[1])
    # All sequences are served from epoch 7 on; nothing is warmed up where there is no curriculum.
    assert lengths == {"linear": 7 + 2, "none": 1 + 2}


def test_the_curve_says_which_share_was_served(world: Any) -> None:
    option = settings(epochs=5, curriculum={"pacing": "linear", "start": 0.2, "warmup": 4})
    hardness = np.random.default_rng(0).permutation(world.corpus.n_users) / (world.corpus.n_users - 1)
    _, curve = trained(world.corpus, option, taught(world, {"t": perfect_labels(world)}, option, hardness))
    trainable = (world.corpus.lengths > 3).sum()
    counts = [np.ceil(share * trainable - 1e-9) for share in (0.2, 0.4, 0.6, 0.8, 1.0)]
    np.testing.assert_allclose([row["share"] for row in curve], np.array(counts) / trainable)


def test_sequences_that_are_too_hard_yet_take_no_part(make_world: Any) -> None:
    # Users of three items have nothing to train on, so a user's code is no place among those who have.
    known = [whole[:3] if user % 5 == 0 else whole for user, whole in enumerate(sequences(60, N_ITEMS))]
    world = make_world(known, N_ITEMS)
    corpus = world.corpus
    assert (corpus.lengths == 3).any()
    hardness = np.random.default_rng(0).permutation(corpus.n_users) / (corpus.n_users - 1)
    hard = hardness > 0.55
    spoilt = [
        [0] * int(corpus.lengths[user]) if hard[user] else corpus.sequence_of(user).tolist()
        for user in range(corpus.n_users)
    ]
    other = make_world(spoilt, corpus.n_items)
    option = settings(epochs=1, curriculum={"pacing": "linear", "start": 0.4, "warmup": 3})
    easy = np.flatnonzero(~hard[corpus.positions().user])
    results = []
    for where in (world, other):
        state = np.eye(corpus.n_items)[last_items(where.corpus)]
        # All the labels of the easy users, and for the others one that differs between the worlds.
        labels = where.label("t", 3 * state, 4, state=state, vectors=3 * np.eye(corpus.n_items))
        assert len(easy) < corpus.n_positions
        results.append(trained(where.corpus, option, taught(where, {"t": labels}, option, hardness))[0])
    assert same(*results)


def test_held_out_items_never_enter_training(make_world: Any, world: Any) -> None:
    corpus = world.corpus
    draw = np.random.default_rng(0)
    poisoned = [
        [*corpus.sequence_of(user)[:-2].tolist(), *draw.integers(0, N_ITEMS, 2).tolist()]
        for user in range(corpus.n_users)
    ]
    other = make_world(poisoned, N_ITEMS)
    training = corpus.positions().split == 0
    option = settings(epochs=1)
    scores = draw.normal(0, 2, (corpus.n_positions, 4))
    for distilled in (False, True):
        results = []
        for where in (world, other):
            lesson = None
            if distilled:
                state = np.where(training[:, None], scores, draw.normal(0, 9, scores.shape))
                vectors = np.random.default_rng(5).normal(0, 1, (N_ITEMS, 4))
                labels = where.label("t", state @ vectors.T, 4, state=state, vectors=vectors)
                lesson = taught(where, {"t": labels}, option)
            results.append(trained(where.corpus, option, lesson)[0])
        assert same(*results)


def test_only_the_last_training_positions_that_fit_are_trained_on(make_world: Any) -> None:
    """Sequences that differ only before the last four training items are the same to a student that sees three."""
    draw = np.random.default_rng(0)
    ends = draw.integers(0, N_ITEMS, (10, 4 + 2)).tolist()
    worlds = [make_world([draw.integers(0, N_ITEMS, 5).tolist() + end for end in ends], N_ITEMS) for _ in range(2)]
    one, other = (trained(world.corpus, settings(epochs=1), max_length=3)[0] for world in worlds)
    assert same(one, other)
    longer, seen = (trained(world.corpus, settings(epochs=1), max_length=4)[0] for world in worlds)
    assert not same(longer, seen)


def test_a_domain_in_which_nobody_has_a_training_position_is_refused_in_one_line(make_world: Any) -> None:
    short = make_world([[0, 1, 2], [2, 1, 0]], 3)
    with pytest.raises(UserError, match=r"nothing to train on: no user .* more than 3 interactions"):
        trained(short.corpus, settings())


def test_a_training_that_diverges_is_stopped_and_says_which_setting_to_lower(make_world: Any) -> None:
    world = make_world([[0, 1, 2, 3, 4, 5]] * 6, N_ITEMS)
    with pytest.raises(
        UserError, match=r"diverged: the loss of epoch \d+ is (nan|inf); lower the student's learning_rate"
    ):
        trained(world.corpus, settings(epochs=20), learning_rate=1e30)


def test_the_running_mean_is_what_is_validated_and_kept(world: Any) -> None:
    """Against the recurrence mean <- d mean + (1 - d) weights, followed by hand over the steps of one epoch."""
    decay = 0.7
    one_user = [world.corpus]
    seen: list[Weights] = []
    network = student(one_user)
    follow = torch.optim.AdamW.step

    def noted(self: Any, *arguments: Any, **options: Any) -> Any:
        result = follow(self, *arguments, **options)
        seen.append(weights(network))
        return result

    option = settings(epochs=1, average=decay)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", noted)
        curve = train(network, side_by_side(one_user), [None], sizes_of(), option, 0)
    expected = seen[0]
    for after in seen[1:]:
        expected = {name: decay * expected[name] + (1 - decay) * after[name] for name in expected}
    assert len(seen) > 3
    for name, tensor in weights(network).items():
        torch.testing.assert_close(tensor, expected[name])
    ranks = rank_targets(network.scorer(Domain(0, world.corpus)), world.corpus, "valid")
    assert metrics(ranks, [10])["ndcg@10"] == curve[0]["ndcg@10"]
