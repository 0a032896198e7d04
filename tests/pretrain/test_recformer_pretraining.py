"""Pre-training of Recformer: it learns, keeps its best epoch, draws what its paper says, and can be interrupted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_recformer import CPU, FILES, N_ITEMS, NETWORK, PRETRAIN, SOURCES, USERS, Interrupted, circle, pretrained_in

from ckd.stages.pretrain.train import pretrain_teacher
from ckd.stages.teachers.contract import DomainData, Job, Opening
from ckd.stages.teachers.recformer import Settings, open_teacher, training
from ckd.stages.teachers.recformer.pretrain import drawn_pairs, item_contrast, mix, pretrain
from ckd.stages.teachers.recformer.tokens import Limits, catalogue, tokenise
from ckd.stages.teachers.recformer.vocabulary import learn_vocabulary
from ckd.storage.errors import UserError
from ckd.storage.files import sha256_file
from ckd.storage.keys import Address
from ckd.storage.store import Store


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return pretrained_in(tmp_path_factory.mktemp("pretrained"))


def test_pre_training_lowers_the_loss_and_raises_the_accuracy(pretrained):
    _, curve, facts = pretrained
    assert [row["epoch"] for row in curve] == list(range(1, 13))
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]
    assert facts["accuracy"] == max(row["accuracy"] for row in curve) > 2 * curve[0]["accuracy"]
    assert curve[facts["best_epoch"] - 1]["accuracy"] == facts["accuracy"]


def test_what_is_pre_trained_opens_as_a_teacher(pretrained):
    (files, _, facts), domain = pretrained, circle(0)
    opening = Opening(Settings(checkpoint="here", precision="float32"), files, domain, None, CPU)
    teacher = open_teacher(opening)
    assert teacher.n_parameters == facts["parameters"]
    assert teacher.queries(0, 3, 8).shape == (domain.position_offsets[3], NETWORK.hidden)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    def weights(seed):
        settings = PRETRAIN.model_copy(update={"epochs": 1, "seed": seed})
        model, tokenizer, _ = pretrain(Job(None, settings, CPU), [DomainData(circle(2, 30))])
        return torch.cat([tensor.flatten() for tensor in model.parameters()]), tokenizer.to_str()

    (first, words), (again, _), (other, others) = weights(4), weights(4), weights(5)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert words == others


def test_frozen_word_embeddings_stay_as_they_started():
    def words(**changed):
        settings = PRETRAIN.model_copy(update={"epochs": 1, **changed})
        return pretrain(Job(None, settings, CPU), [DomainData(circle(2, 30))])[0].embeddings.word_embeddings.weight

    frozen, slower = words(freeze_words=True), words(freeze_words=True, learning_rate=1e-4)
    assert torch.equal(frozen, slower)
    assert not torch.equal(words(), frozen)


def test_without_masked_language_modelling_the_loss_is_the_contrast():
    settings = PRETRAIN.model_copy(update={"epochs": 1, "mlm_weight": 0.0})
    _, _, (row,) = pretrain(Job(None, settings, CPU), [DomainData(circle(2, 30))])
    assert 0 < row["loss"] < 2 * np.log(PRETRAIN.batch_size)


def test_too_few_sequences_are_refused():
    with pytest.raises(UserError, match=r"the sources have 15 sequences .* pretrain\.held_out asks for 16"):
        pretrain(Job(None, PRETRAIN, CPU), [DomainData(circle(1, 15))])


def test_the_contrast_is_the_cross_entropy_of_cosines_over_the_temperature():
    a, b = np.random.default_rng(0).normal(size=(2, 5, 7))
    unit_a, unit_b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    logits = unit_a @ unit_b.T / 0.05
    expected = np.mean([np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(logits)])
    assert item_contrast(torch.from_numpy(a), torch.from_numpy(b), 0.05).item() == pytest.approx(expected)


@pytest.fixture(scope="module")
def mixture():
    """Two domains of which the second one's items are counted on from the first one's; one sequence is too short."""
    first, second = circle(1), circle(2, 30)
    short = replace(second, offsets=np.array([0, 1, *second.offsets[2:]]))
    items = [item for corpus in (first, short) for item in catalogue(corpus)]
    limits = Limits(3, 8, 4, 60)
    return mix([DomainData(first), DomainData(short)], tokenise(items, learn_vocabulary(items, 300), limits), limits)


def test_later_domains_stand_behind_earlier_ones_and_give_pairs_of_their_own(mixture):
    first, second = circle(1), circle(2, 30)
    assert len(mixture.start) == USERS + 29
    for row, (corpus, user, shift) in {3: (first, 3, 0), USERS + 4: (second, 5, N_ITEMS)}.items():
        own = mixture.sequence[mixture.start[row] : mixture.start[row] + mixture.length[row]]
        np.testing.assert_array_equal(own, corpus.sequence_of(user) + shift)


def test_a_pair_is_an_item_of_the_second_half_and_what_came_before_it(mixture):
    rows, seen = np.arange(len(mixture.start)), {}
    for seed in range(80):
        batches = drawn_pairs(mixture, rows, 16, np.random.default_rng(seed))
        pairs = np.concatenate(batches)
        assert sorted(pairs[:, 0].tolist()) == rows.tolist()
        for row, place in pairs.tolist():
            seen.setdefault(row, set()).add(place)
    for row in rows.tolist():
        length = int(mixture.length[row])
        assert seen[row] == set(range((length - 1) // 2, length))
    history, item = mixture.pairs(np.array([3, 4]), np.array([2, 3]))
    tokens = mixture.tokens
    for side, count, at in ((history, 2, 1), (item, 1, 2)):
        newest = mixture.sequence[mixture.start[3] + at]
        assert side.item_position[0].max() >= count
        length = tokens.lengths[newest]
        first = side.ids[0, 1 : 1 + length].numpy()
        np.testing.assert_array_equal(first, tokens.ids[tokens.offsets[newest] : tokens.offsets[newest] + length])


def test_an_interrupted_pre_training_goes_on_to_the_same_bytes(pretrained, tmp_path):
    store, address = Store(tmp_path), Address("teachers", {"d": 1})

    def run(on_epoch):
        return pretrain_teacher(store, address, training, PRETRAIN, SOURCES, CPU, on_epoch)

    def stop(row):
        if row["epoch"] == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(stop)
    artifact = run(lambda _: None)
    for name in FILES:
        assert sha256_file(artifact.path / name) == sha256_file(pretrained[0][name]), name
