"""Contrastive pre-training: the authors' losses and augmentation worked out by hand, the mixture of domains."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.teachers.contract import DomainData, Job, TextVectors
from ckd.stages.teachers.unisrec import NetworkSettings, PretrainSettings
from ckd.stages.teachers.unisrec import pretrain as pretraining
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.stages.teachers.unisrec.pretrain import (
    closed_up,
    contrast,
    mix,
    pretrain,
    sequence_item_loss,
    sequence_sequence_loss,
    surviving,
)
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError

CPU = torch.device("cpu")
P = 6
NETWORK = NetworkSettings(
    hidden=8, experts=2, layers=1, inner=8, max_length=5, hidden_dropout=0, attention_dropout=0, adaptor_dropout=0
)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def source(lengths, n_items, seed):
    """A source domain with random text vectors, also of texts with dropped words."""
    draw = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    sequence = draw.integers(0, n_items, offsets[-1]).astype(np.int32)
    users = pa.array([f"u{n:03d}" for n in range(len(lengths))])
    corpus = Corpus(f"key-{seed}", pa.table({"item": np.arange(n_items, dtype=np.int32)}), users, offsets, sequence)
    text, dropped = (TextVectors(draw.normal(size=(n_items, P)).astype(np.float32), "encoder") for _ in range(2))
    return DomainData(corpus, text, dropped)


# --- the losses, as the authors' code computes them over rows


def over_rows(states, candidates, target, tau):
    """Row i against row j; same targets give the exponent zero."""
    logits = unit(states) @ unit(candidates).T / tau
    losses = []
    for i in range(len(target)):
        against = [logits[i, j] if i == j or target[i] != target[j] else 0 for j in range(len(target))]
        losses.append(np.log(np.exp(against).sum()) - logits[i, i])
    return np.mean(losses)


@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 2**32), st.sampled_from([0.07, 0.5, 2.0]))
def test_the_sequence_item_loss_is_the_one_over_rows(n, items, seed, tau):
    draw = np.random.default_rng(seed)
    states, table, target = draw.normal(size=(n, 4)), draw.normal(size=(items, 4)), draw.integers(0, items, n)
    found = sequence_item_loss(torch.from_numpy(states), torch.from_numpy(table), torch.from_numpy(target), tau)
    assert found.item() == pytest.approx(over_rows(states, table[target], target, tau), abs=1e-10)


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32), st.sampled_from([0.07, 0.5, 2.0]))
def test_the_sequence_sequence_loss_is_the_one_over_rows(n, targets, seed, tau):
    draw = np.random.default_rng(seed)
    states, copies = draw.normal(size=(2, n, 4))
    target = draw.integers(0, targets, n)
    found = sequence_sequence_loss(torch.from_numpy(states), torch.from_numpy(copies), torch.from_numpy(target), tau)
    assert found.item() == pytest.approx(over_rows(states, copies, target, tau), abs=1e-10)


@pytest.mark.parametrize("loss", [sequence_item_loss, sequence_sequence_loss])
@pytest.mark.parametrize("held", [1, 40, 41])
def test_a_loss_in_parts_is_the_loss(monkeypatch, loss, held):
    """So are its gradients; the parts bound the memory."""
    draw = torch.Generator().manual_seed(0)
    target = torch.tensor([0, 1, 2, 3, 4, 5, 0, 0, 7, 6])
    start = torch.randn(2, 10, 4, dtype=torch.float64, generator=draw)

    def run():
        states, others = (tensor.clone().requires_grad_() for tensor in start)
        value = loss(states, others[:8] if loss is sequence_item_loss else others, target, 0.5)
        value.backward()
        return value.detach(), states.grad, others.grad

    whole = run()
    monkeypatch.setattr(pretraining, "_LOGITS", held)
    for found, expected in zip(run(), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert whole[1].abs().sum() > 0


@pytest.mark.parametrize("loss", [sequence_item_loss, sequence_sequence_loss])
def test_a_loss_under_autocast_keeps_the_digits_of_its_sums(loss):
    draw = torch.Generator().manual_seed(0)
    states, others = torch.randn(2, 64, 16, generator=draw)
    target = torch.arange(64)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(states, others, target, 0.07)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss(states, others, target, 0.07).item(), abs=0.05)


def batch(**settings):
    """A network in evaluation mode, a mixture in double precision, settings, and the rows of a batch."""
    torch.manual_seed(0)
    model = UniSRec(NETWORK, P).double().eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.2 * torch.randn_like(tensor))
    mixture = mix([source([4, 6, 9, 3], 12, seed=1)], NETWORK.max_length, CPU)
    mixture = replace(mixture, text=mixture.text.double(), augmented=mixture.augmented.double())
    return model, mixture, PretrainSettings(network=NETWORK, **settings), np.array([2, 0, 3])


def prefixes(mixture, rows):
    """(history, target) of every row, as the authors' data files list them."""
    for row in rows:
        items = mixture.sequence[mixture.start[row] :][: mixture.length[row] + 1].tolist()
        yield from ((items[:end], items[end]) for end in range(1, len(items)))


def encoded(model, vectors):
    return model.encode(vectors.unsqueeze(0))[0, -1].detach().numpy()


def test_every_prefix_of_a_sequence_is_a_row_of_the_sequence_item_loss():
    model, mixture, settings, rows = batch(sequence_weight=0)
    found = contrast(model, mixture, rows, settings, np.random.default_rng(5)).item()
    table = model.item_table(mixture.text).detach()
    pairs = list(prefixes(mixture, rows))
    assert len(pairs) == 5 + 3 + 2
    target = np.array([target for _, target in pairs])
    assert len(set(target.tolist())) < len(target)
    states = np.stack([encoded(model, table[history]) for history, _ in pairs])
    assert found == pytest.approx(over_rows(states, table.numpy()[target], target, NETWORK.temperature), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_of_dropped_items_contrasts_each_surviving_prefix_with_its_copy(seed):
    """The copy of a prefix is made here from the prefix alone, by the authors' rule."""
    model, mixture, settings, rows = batch(sequence_weight=0.25, item_drop=0.4, item_drop_coefficient=1.0)
    found = contrast(model, mixture, rows, settings, np.random.default_rng(seed)).item()
    draw = np.random.default_rng(seed)
    draw.random()
    keep = draw.random((len(rows), mixture.length[rows].max())) >= 0.4
    table = model.item_table(mixture.text).detach()
    pairs = list(prefixes(mixture, rows))
    states, copies, target = [], [], []
    for sequence, row in enumerate(rows):
        for history, following in prefixes(mixture, [row]):
            end = len(history)
            # The item at the end of a prefix is in its sequence's copy unless the next one is dropped.
            if end < mixture.length[row] and not keep[sequence, end]:
                continue
            copy = authors_drop(history, keep[sequence, :end])
            states.append(encoded(model, table[history]))
            copies.append(encoded(model, table[copy]))
            target.append(following)
    assert len(rows) <= len(states) < len(pairs)
    tau, everything = NETWORK.temperature, np.array([following for _, following in pairs])
    all_states = np.stack([encoded(model, table[history]) for history, _ in pairs])
    expected = over_rows(all_states, table.numpy()[everything], everything, tau)
    expected += 0.25 * over_rows(np.stack(states), np.stack(copies), np.array(target), tau)
    assert found == pytest.approx(expected, abs=1e-9)


def test_a_batch_of_dropped_words_contrasts_every_prefix_with_its_copy():
    model, mixture, settings, rows = batch(sequence_weight=0.25, item_drop=0.4, item_drop_coefficient=0.0)
    found = contrast(model, mixture, rows, settings, np.random.default_rng(3)).item()
    draw = np.random.default_rng(3)
    draw.random()
    changed = draw.random((len(rows), mixture.length[rows].max())) < 0.4
    table, dropped = (model.item_table(text).detach() for text in (mixture.text, mixture.augmented))
    pairs, copies = list(prefixes(mixture, rows)), []
    for sequence, row in enumerate(rows):
        for history, _ in prefixes(mixture, [row]):
            where = torch.from_numpy(changed[sequence, : len(history)]).unsqueeze(1)
            copies.append(encoded(model, torch.where(where, dropped[history], table[history])))
    states = np.stack([encoded(model, table[history]) for history, _ in pairs])
    target, tau = np.array([following for _, following in pairs]), NETWORK.temperature
    expected = over_rows(states, table.numpy()[target], target, tau)
    expected += 0.25 * over_rows(states, np.stack(copies), target, tau)
    assert found == pytest.approx(expected, abs=1e-9)


def test_so_many_batches_drop_items_as_the_coefficient_says():
    """Where dropping words changes no vector, the loss of a batch that drops words is always the same."""
    model, mixture, settings, rows = batch(item_drop=0.6, sequence_weight=1.0, item_drop_coefficient=0.7)
    mixture = replace(mixture, augmented=mixture.text)
    words = settings.model_copy(update={"item_drop_coefficient": 0.0})
    draw = np.random.default_rng(0)
    with torch.inference_mode():
        same = contrast(model, mixture, rows, words, draw).item()
        losses = [contrast(model, mixture, rows, settings, draw).item() for _ in range(300)]
    assert np.mean([abs(loss - same) > 1e-9 for loss in losses]) == pytest.approx(0.7, abs=0.08)


# --- the augmentation


def authors_drop(items, keep):
    """Write all items to the place of the last one kept so far; what is written last stays."""
    places = np.cumsum([True, *keep[1:]]) - 1
    copy = {}
    for place, item in zip(places.tolist(), items, strict=True):
        copy[place] = item
    return [copy[place] for place in range(len(copy))]


def test_the_authors_example_of_dropping():
    assert authors_drop([11, 12, 13, 14, 15, 16], [1, 0, 0, 1, 0, 1]) == [13, 15, 16]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.floats(0, 0.95), st.integers(0, 2**32))
def test_what_survives_is_what_the_authors_code_leaves(lengths, share, seed):
    real = np.arange(max(lengths)) < np.array(lengths)[:, None]
    codes = np.where(real, np.arange(1, real.size + 1).reshape(real.shape), 0)
    alive = torch.from_numpy(surviving(real, share, np.random.default_rng(seed)))
    found, left = closed_up(torch.from_numpy(codes), alive)
    keep = np.random.default_rng(seed).random(real.shape) >= share
    for row, length in enumerate(lengths):
        expected = authors_drop(codes[row, :length].tolist(), keep[row, :length])
        assert found[row, : left[row]].tolist() == expected
        assert codes[row][alive[row].numpy()].tolist() == expected
    assert found.shape == (len(lengths), left.max())


def test_the_share_of_dropped_items_is_the_one_asked_for():
    alive = surviving(np.ones((2_000, 21), bool), 0.2, np.random.default_rng(0))
    assert alive[:, -1].all()
    assert alive[:, :-1].mean() == pytest.approx(0.8, abs=0.01)


# --- the mixture


def test_later_domains_stand_behind_earlier_ones_with_their_own_items():
    first, second = source([4, 3], 5, seed=1), source([9, 3], 7, seed=2)
    mixture = mix([first, second], 5, CPU)
    assert mixture.length.tolist() == [3, 2, 5, 2]
    np.testing.assert_array_equal(mixture.text.numpy(), np.concatenate([first.text.vectors, second.text.vectors]))
    dropped = np.concatenate([first.augmented.vectors, second.augmented.vectors])
    np.testing.assert_array_equal(mixture.augmented.numpy(), dropped)
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
    domain = source(lengths, n_items, seed=3)
    starts = np.random.default_rng(0).integers(0, n_items, 60)
    walks = ((starts[:, None] + np.arange(8)) % n_items).astype(np.int32).ravel()
    domain = replace(domain, corpus=replace(domain.corpus, sequence=walks))
    settings = PretrainSettings(network=NETWORK, epochs=12, batch_size=20, learning_rate=0.02, seed=7, held_out=0)
    model, curve = pretrain(Job(None, settings, CPU), [domain])
    assert [row["epoch"] for row in curve] == list(range(1, 13))
    assert curve[-1]["loss"] < 0.5 * curve[0]["loss"]
    assert not model.training
    again, _ = pretrain(Job(None, settings, CPU), [domain])
    other, _ = pretrain(Job(None, settings.model_copy(update={"seed": 8}), CPU), [domain])
    weights, same, different = (net.position_embedding.weight for net in (model, again, other))
    assert torch.equal(weights, same)
    assert not torch.equal(weights, different)


def test_dropping_words_without_text_vectors_for_it_is_refused_before_training():
    domains = [source([4, 5], 6, seed=1), replace(source([4, 5], 6, seed=2), augmented=None)]
    settings = PretrainSettings(network=NETWORK, epochs=1, held_out=0)
    with pytest.raises(UserError, match=r"^pretrain.item_drop_coefficient is 0.9, .* set it to 1$"):
        pretrain(Job(None, settings, CPU), domains)
    for enough in ({"item_drop_coefficient": 1.0}, {"sequence_weight": 0.0}):
        pretrain(Job(None, settings.model_copy(update=enough), CPU), domains)


def test_sources_whose_text_vectors_are_not_of_one_kind_are_refused():
    first, second = source([4, 5], 6, seed=1), source([4, 5], 6, seed=2)
    other = replace(second, text=TextVectors(second.text.vectors, "another"))
    with pytest.raises(UserError, match=r"not of one kind \(.* of another; "):
        mix([first, other], 5, CPU)
    narrow = replace(second, text=TextVectors(second.text.vectors[:, :1], "encoder"))
    with pytest.raises(UserError, match="not of one kind"):
        mix([first, narrow], 5, CPU)
