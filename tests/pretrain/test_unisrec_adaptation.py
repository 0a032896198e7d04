"""Adaptation to a domain: it learns, keeps its best epoch, and leaves alone what it is told to."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ckd.stages.batching import training_windows
from ckd.stages.evaluate.metrics import metrics
from ckd.stages.evaluate.ranking import rank_targets
from ckd.stages.teachers.contract import Job, TextVectors
from ckd.stages.teachers.unisrec import AdaptSettings, NetworkSettings
from ckd.stages.teachers.unisrec.adapt import adapt, scorer
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError

CPU = torch.device("cpu")
N_ITEMS, USERS, P = 30, 80, 12
NETWORK = NetworkSettings(hidden=16, experts=2, layers=1, inner=16, max_length=6, hidden_dropout=0, attention_dropout=0)


@pytest.fixture(scope="module")
def circle():
    """Users walk around a circle of items: what follows is known by construction."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(5, 12, USERS)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    sequence = np.concatenate([(draw.integers(N_ITEMS) + np.arange(n)) % N_ITEMS for n in lengths]).astype(np.int32)
    items = pa.table({"item": np.arange(N_ITEMS, dtype=np.int32)})
    return Corpus("circle", items, pa.array([f"u{n:03d}" for n in range(USERS)]), offsets, sequence)


@pytest.fixture(scope="module")
def text():
    return TextVectors(np.random.default_rng(1).normal(size=(N_ITEMS, P)).astype(np.float32), "encoder")


@pytest.fixture
def fresh():
    torch.manual_seed(0)
    return UniSRec(NETWORK, P).eval()


def adapted(pretrained, settings, corpus, text):
    return adapt(pretrained, Job(None, settings, CPU), corpus, text)


def ndcg(model, text, corpus, split):
    ranks = rank_targets(scorer(model, torch.from_numpy(text.vectors), corpus), corpus, split)
    return metrics(ranks, [10])["ndcg@10"]


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("mode", ["inductive", "transductive"])
def test_adaptation_improves_validation_and_test_on_a_world_that_can_be_learnt(circle, text, fresh, mode):
    settings = AdaptSettings(mode=mode, epochs=25, patience=25, batch_size=16, learning_rate=0.01)
    model, curve = adapted(fresh, settings, circle, text)
    assert curve[0]["epoch"] == 0
    if mode == "inductive":  # an ID table starts at random
        assert curve[0]["ndcg@10"] == pytest.approx(ndcg(fresh, text, circle, "valid"))
    best = max(row["ndcg@10"] for row in curve)
    assert best > 0.5 > 3 * curve[0]["ndcg@10"]
    assert ndcg(model, text, circle, "valid") == pytest.approx(best)
    assert ndcg(model, text, circle, "test") > 0.5
    assert (model.item_embedding is not None) == (mode == "transductive")
    assert not model.training


def test_the_network_that_is_adapted_is_left_as_it_was(circle, text, fresh):
    before = weights(fresh)
    adapted(fresh, AdaptSettings(epochs=1), circle, text)
    assert same(weights(fresh), before)


def sequences_of(lengths):
    """A corpus in which no item occurs twice."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    users = pa.array([f"u{n:02d}" for n in range(len(lengths))])
    sequence = np.arange(offsets[-1], dtype=np.int32)
    return Corpus("key", pa.table({"item": sequence}), users, offsets, sequence)


@pytest.mark.parametrize(("lengths", "held_out", "needed"), [([3, 3], 2, 3), ([1], 0, 1)])
def test_a_domain_without_a_training_position_is_refused(lengths, held_out, needed):
    with pytest.raises(UserError, match=f"nothing to train on: no user .* has more than {needed} interactions"):
        training_windows(sequences_of(lengths), 5, held_out)


@given(st.lists(st.integers(3, 15), min_size=1, max_size=15), st.integers(1, 10), st.sampled_from([0, 2]))
def test_training_windows_hold_the_last_training_positions_and_no_held_out_item(lengths, max_length, held_out):
    assume(max(lengths) > held_out + 1)
    corpus = sequences_of(lengths)
    offsets = corpus.offsets
    cut = training_windows(corpus, max_length, held_out)
    expected = {}
    for user, length in enumerate(lengths):
        pairs = [(t, t + 1) for t in range(length - 1 - held_out)][-max_length:]
        if pairs:
            expected[user] = [(offsets[user] + item, offsets[user] + target) for item, target in pairs]
    found = {
        user: [(start + step, start + step + 1) for step in range(length)]
        for user, start, length in zip(cut.user, cut.start, cut.length, strict=True)
    }
    assert found == expected
    assert (cut.position == cut.start - offsets[cut.user] + 1).all()


def test_adaptation_stops_after_so_many_epochs_without_a_better_one_and_returns_the_best(circle, text, fresh):
    """With a ruinous learning rate nothing gets better than the start."""
    good, _ = adapted(fresh, AdaptSettings(epochs=15, patience=15, batch_size=16, learning_rate=0.01), circle, text)
    ruin = AdaptSettings(epochs=50, patience=2, batch_size=16, learning_rate=5.0)
    model, curve = adapted(good, ruin, circle, text)
    best = int(np.argmax([row["ndcg@10"] for row in curve]))
    assert len(curve) == best + ruin.patience + 1
    assert same(weights(model), weights(good)) == (best == 0)
    assert ndcg(model, text, circle, "valid") == pytest.approx(curve[best]["ndcg@10"])


def test_a_frozen_encoder_keeps_positions_and_layers_and_trains_the_rest(circle, text, fresh):
    settings = AdaptSettings(epochs=6, freeze_encoder=True, batch_size=16, learning_rate=0.01)
    model, curve = adapted(fresh, settings, circle, text)
    assert max(row["ndcg@10"] for row in curve[1:]) > curve[0]["ndcg@10"]
    before, after = weights(fresh), weights(model)
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"LayerNorm", "moe_adaptor"}


def test_another_dropout_is_kept_with_the_network(circle, text, fresh):
    model, _ = adapted(fresh, AdaptSettings(epochs=1, dropout=0.3), circle, text)
    changed = {"hidden_dropout": 0.3, "attention_dropout": 0.3}
    assert model.settings == NETWORK.model_copy(update=changed)
    assert {layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)} == {
        0.3,
        NETWORK.adaptor_dropout,
    }
