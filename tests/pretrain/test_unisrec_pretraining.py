"""Contrastive pre-training: the two losses by hand, the augmentation, the mixture of domains."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.teachers.contract import DomainData, Job, TextVectors
from ckd.stages.teachers.unisrec import NetworkSettings, PretrainSettings
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.stages.teachers.unisrec.pretrain import (
    contrast,
    drop_items,
    mix,
    pretrain,
    sequence_item_loss,
    sequence_sequence_loss,
)
from ckd.storage.corpus import Corpus

CPU = torch.device("cpu")
P = 6
NETWORK = NetworkSettings(
    hidden=8, experts=2, layers=1, inner=8, max_length=5, hidden_dropout=0, attention_dropout=0, adaptor_dropout=0
)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def source(lengths, n_items, seed, **text):
    """A source domain with random text vectors, or with the ones given."""
    draw = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    sequence = draw.integers(0, n_items, offsets[-1]).astype(np.int32)
    users = pa.array([f"u{n:03d}" for n in range(len(lengths))])
    corpus = Corpus(f"key-{seed}", pa.table({"item": np.arange(n_items, dtype=np.int32)}), users, offsets, sequence)
    vectors = draw.normal(size=(n_items, P)).astype(np.float32)
    return DomainData(corpus, TextVectors(text.get("vectors", vectors), "encoder"))


# --- the losses, worked out in float64


@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 2**32), st.sampled_from([0.07, 0.5, 2.0]))
def test_the_sequence_item_loss_is_minus_the_mean_log_softmax_of_the_target(n, items, seed, tau):
    draw = np.random.default_rng(seed)
    states, table, target = draw.normal(size=(n, 4)), draw.normal(size=(items, 4)), draw.integers(0, items, n)
    cosine = unit(states) @ unit(table).T / tau
    expected = np.mean([np.log(np.exp(row).sum()) - row[wanted] for row, wanted in zip(cosine, target, strict=True)])
    found = sequence_item_loss(torch.from_numpy(states), torch.from_numpy(table), torch.from_numpy(target), tau)
    assert found.item() == pytest.approx(expected, abs=1e-10)


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32), st.sampled_from([0.07, 0.5, 2.0]))
def test_the_sequence_sequence_loss_leaves_out_copies_of_sequences_with_the_same_target(n, targets, seed, tau):
    draw = np.random.default_rng(seed)
    states, copies = draw.normal(size=(2, n, 4))
    target = draw.integers(0, targets, n).astype(np.int32)
    cosine = unit(states) @ unit(copies).T / tau
    losses = []
    for i in range(n):
        against = [j for j in range(n) if j == i or target[j] != target[i]]
        losses.append(np.log(np.exp(cosine[i, against]).sum()) - cosine[i, i])
    found = sequence_sequence_loss(torch.from_numpy(states), torch.from_numpy(copies), target, tau)
    assert found.item() == pytest.approx(np.mean(losses), abs=1e-10)


def test_the_loss_of_a_batch_is_the_sum_over_all_positions_and_the_last_ones():
    """Every position of each sequence against the batch's distinct targets, plus lambda times the copies."""
    domain = source([4, 6, 9, 3], 12, seed=1)
    settings = PretrainSettings(network=NETWORK, sequence_weight=0.25, item_drop=0.4)
    torch.manual_seed(0)
    model = UniSRec(NETWORK, P).double().eval()
    mixture = mix([domain], NETWORK.max_length, CPU)
    mixture = type(mixture)(mixture.text.double(), mixture.sequence, mixture.start, mixture.length)
    rows = np.array([2, 0, 3])
    found = contrast(model, mixture, rows, settings, np.random.default_rng(5)).item()

    table = model.item_table(mixture.text).detach()
    slices = [mixture.sequence[mixture.start[row] :][: mixture.length[row] + 1].astype(np.int64) for row in rows]
    assert [len(items) - 1 for items in slices] == [5, 3, 2]
    states = [model.encode(table[torch.from_numpy(items[:-1])].unsqueeze(0))[0].detach() for items in slices]
    targets = np.concatenate([items[1:] for items in slices])
    distinct, wanted = np.unique(targets, return_inverse=True)
    tau = NETWORK.temperature
    expected = sequence_item_loss(torch.cat(states), table[torch.from_numpy(distinct)], torch.from_numpy(wanted), tau)

    width = max(len(items) - 1 for items in slices)
    codes = torch.stack([torch.from_numpy(np.pad(items[:-1], (0, width + 1 - len(items)))) for items in slices])
    lengths = np.array([len(items) - 1 for items in slices])
    dropped, kept = drop_items(codes, lengths, settings.item_drop, np.random.default_rng(5))
    copies = [model.encode(table[row[:n]].unsqueeze(0))[0, -1].detach() for row, n in zip(dropped, kept, strict=True)]
    last = np.array([items[-1] for items in slices], np.int32)
    ends = torch.stack([state[-1] for state in states])
    expected += settings.sequence_weight * sequence_sequence_loss(ends, torch.stack(copies), last, tau)
    assert found == pytest.approx(expected.item(), abs=1e-10)


# --- the augmentation


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.floats(0, 0.95), st.integers(0, 2**32))
def test_dropping_keeps_the_first_item_and_the_order_and_counts_what_is_left(lengths, share, seed):
    length = np.array(lengths)
    width = length.max()
    codes = np.arange(1, len(length) * width + 1).reshape(len(length), width)
    codes[np.arange(width) >= length[:, None]] = 0
    kept, left = drop_items(torch.from_numpy(codes), length, share, np.random.default_rng(seed))
    for before, after, n, m in zip(codes, kept.numpy(), length, left, strict=True):
        assert 1 <= m <= n
        assert after[0] == before[0]
        assert (np.diff(after[:m]) > 0).all()
        assert set(after[:m]) <= set(before[:n])
        if share == 0:
            assert m == n


def test_the_share_of_dropped_items_is_the_one_asked_for():
    length = np.full(2_000, 21)
    _, left = drop_items(torch.zeros(2_000, 21, dtype=torch.int64), length, 0.2, np.random.default_rng(0))
    assert (left - 1).mean() / 20 == pytest.approx(0.8, abs=0.01)


# --- the mixture


def test_later_domains_stand_behind_earlier_ones_with_their_own_items():
    first, second = source([4, 3], 5, seed=1), source([9, 3], 7, seed=2)
    mixture = mix([first, second], 5, CPU)
    assert mixture.length.tolist() == [3, 2, 5, 2]
    np.testing.assert_array_equal(mixture.text[:5].numpy(), first.text.vectors)
    np.testing.assert_array_equal(mixture.text[5:].numpy(), second.text.vectors)
    for row, (corpus, user, shift) in enumerate(
        [(first.corpus, 0, 0), (first.corpus, 1, 0), (second.corpus, 0, 5), (second.corpus, 1, 5)]
    ):
        found = mixture.sequence[mixture.start[row] :][: mixture.length[row] + 1]
        expected = corpus.sequence_of(user)[-mixture.length[row] - 1 :] + shift
        np.testing.assert_array_equal(found, expected)


# --- the training


def test_pre_training_learns_and_the_same_seed_gives_the_same_weights():
    """Users walk around a circle of items, so the next item can be told from the last one."""
    lengths, n_items = [8] * 60, 12
    corpus, text = (domain := source(lengths, n_items, seed=3)).corpus, domain.text
    starts = np.random.default_rng(0).integers(0, n_items, 60)
    walks = ((starts[:, None] + np.arange(8)) % n_items).astype(np.int32).ravel()
    domain = DomainData(Corpus(corpus.key, corpus.items, corpus.user_ids, corpus.offsets, walks), text)
    settings = PretrainSettings(network=NETWORK, epochs=12, batch_size=20, learning_rate=0.02, seed=7)
    model, curve = pretrain(Job(None, settings, CPU), [domain])
    assert [row["epoch"] for row in curve] == list(range(1, 13))
    assert curve[-1]["loss"] < 0.5 * curve[0]["loss"]
    assert not model.training
    again, _ = pretrain(Job(None, settings, CPU), [domain])
    other, _ = pretrain(Job(None, settings.model_copy(update={"seed": 8}), CPU), [domain])
    weights, same, different = (net.position_embedding.weight for net in (model, again, other))
    assert torch.equal(weights, same)
    assert not torch.equal(weights, different)
