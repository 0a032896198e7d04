"""Pre-training and two-stage adaptation of Recformer: they learn, keep their best epoch, and do what the paper says."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from ckd.stages.evaluate.metrics import metrics
from ckd.stages.evaluate.ranking import rank_targets
from ckd.stages.pretrain.train import adapt_teacher, pretrain_teacher
from ckd.stages.teachers.checkpoint import catalogue_digest
from ckd.stages.teachers.contract import DomainData, Job, Opening
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS
from ckd.stages.teachers.recformer import (
    AdaptSettings,
    NetworkSettings,
    PretrainSettings,
    Settings,
    open_teacher,
    training,
)
from ckd.stages.teachers.recformer.adapt import Adapted, Lesson, adapt, rate
from ckd.stages.teachers.recformer.checkpoint import open_frozen
from ckd.stages.teachers.recformer.encode import encode_items
from ckd.stages.teachers.recformer.files import TOKENIZER
from ckd.stages.teachers.recformer.network import Recformer
from ckd.stages.teachers.recformer.pretrain import drawn_pairs, item_contrast, mix, pretrain
from ckd.stages.teachers.recformer.tokens import Limits, catalogue, tokenise
from ckd.stages.teachers.recformer.vocabulary import learn_vocabulary
from ckd.storage.corpus import HELD_OUT, Corpus
from ckd.storage.errors import UserError
from ckd.storage.files import sha256_file
from ckd.storage.keys import Address
from ckd.storage.progress import forget_training, training_states
from ckd.storage.store import Store

CPU = torch.device("cpu")
N_ITEMS, USERS = 20, 60
COLOURS, THINGS = ("red", "blue", "steel", "paper"), ("tape", "pen", "box", "nail", "ink")
NETWORK = NetworkSettings(
    vocabulary=330, hidden=16, layers=2, heads=2, inner=24, window=8, max_tokens=60, max_items=4, dropout=0.0
)
PRETRAIN = PretrainSettings(
    network=NETWORK, epochs=12, patience=12, held_out=16, batch_size=16, learning_rate=0.01, precision="float32", seed=4
)
EPOCHS, PATIENCE, BRIEF_PATIENCE, SECOND_PATIENCE = 25, 6, 2, 3
FILES = (CONFIG, WEIGHTS, TOKENIZER)
TABLE = "item_embedding.weight"


def circle(seed, users=USERS, step=1):
    """Users walk around a circle of items, each with a text of its own, by some step: the last item tells the next."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(5, 12, users)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    walks = [(draw.integers(N_ITEMS) + step * np.arange(n)) % N_ITEMS for n in lengths]
    items = {
        "item": np.arange(N_ITEMS, dtype=np.int32),
        "item_id": [f"item-{code:02d}" for code in range(N_ITEMS)],
        "title": [f"{COLOURS[code % 4]} {THINGS[code // 4]}" for code in range(N_ITEMS)],
        "brand": [THINGS[code % 5] for code in range(N_ITEMS)],
        "categories": pa.nulls(N_ITEMS, pa.string()),
        "description": pa.nulls(N_ITEMS, pa.string()),
    }
    return Corpus(
        "circle",
        pa.table(items),
        pa.array([f"u{n:03d}" for n in range(users)]),
        offsets,
        np.concatenate(walks).astype(np.int32),
    )


SOURCES = [DomainData(circle(1)), DomainData(circle(2, 30))]
FEW = circle(0, step=7)


@pytest.fixture(scope="module")
def domain():
    """Users of another step than those of the sources."""
    return circle(0, 200, step=7)


@pytest.fixture(scope="module")
def pretrained(domain, tmp_path_factory):
    """The files of a Recformer pre-trained on two sources, its curve, and the facts about it."""
    store, rows = Store(tmp_path_factory.mktemp("pretrained")), []
    with store.draft(Address("teachers", {"a": 1})) as draft:
        facts = training.pretrain_into(Job(draft, PRETRAIN, CPU, rows.append), SOURCES)
        forget_training(draft)
        artifact = draft.commit(facts)
    return {name: artifact.path / name for name in FILES}, rows, facts


def adapt_settings(**changed):
    common = {
        "epochs": EPOCHS,
        "patience": PATIENCE,
        "second_epochs": 6,
        "second_patience": SECOND_PATIENCE,
        "warmup": 2,
    }
    steps = {"batch_size": 8, "learning_rate": 0.001, "precision": "float32", "seed": 1}
    return AdaptSettings(**(common | steps | changed))


# --- pre-training


def test_pre_training_lowers_the_loss_and_raises_the_accuracy(pretrained):
    _, curve, facts = pretrained
    assert [row["epoch"] for row in curve] == list(range(1, 13))
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]
    assert facts["accuracy"] == max(row["accuracy"] for row in curve) > 2 * curve[0]["accuracy"]
    assert curve[facts["best_epoch"] - 1]["accuracy"] == facts["accuracy"]


def test_what_is_pre_trained_opens_as_a_teacher(pretrained, domain):
    files, _, facts = pretrained
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


# --- adaptation


class Kept(NamedTuple):
    """What an adaptation left: its files, facts and curve, and the weights with the item table after each epoch."""

    files: dict
    facts: dict
    curve: list
    states: list


@pytest.fixture(scope="module")
def adapt_into(pretrained, tmp_path_factory):
    """A function that adapts the pre-trained Recformer to a domain."""

    def adapt(corpus, **changed):
        curve, states = [], []
        with Store(tmp_path_factory.mktemp("adapted")).draft(Address("teachers", {"b": 1})) as draft:

            def keep(row):
                path = draft.partial / next(iter(training_states(draft).values()))
                states.append(torch.load(path, weights_only=True)["model"])
                curve.append(row)

            job = Job(draft, adapt_settings(**changed), CPU, keep)
            facts = training.adapt_into(job, pretrained[0], DomainData(corpus))
            forget_training(draft)
            artifact = draft.commit(facts)
        return Kept({name: artifact.path / name for name in FILES}, facts, curve, states)

    return adapt


@pytest.fixture(scope="module")
def adapted(adapt_into, domain):
    return adapt_into(domain)


@pytest.fixture(scope="module")
def brief(adapt_into):
    """An adaptation too short to learn much, with a second stage all the same."""
    return adapt_into(FEW, patience=BRIEF_PATIENCE)


def ndcg(files, corpus, split="valid"):
    """NDCG@10 of the teacher in some files, through the functions that label."""
    opening = Opening(Settings(checkpoint="here", precision="float32"), files, corpus, None, CPU)
    teacher = open_teacher(opening)

    def score(users, position):
        return teacher.queries_at(users, position) @ teacher.item_vectors().T

    return metrics(rank_targets(score, corpus, split), [10])["ndcg@10"]


def encoded(frozen, state, corpus):
    """The item vectors of a network after some epoch."""
    model = Recformer(frozen.model.config)
    weights = {name: tensor for name, tensor in state.items() if name.startswith("longformer.")}
    model.load_state_dict({name.removeprefix("longformer."): tensor for name, tensor in weights.items()})
    limits = model.config.limits
    tokens = tokenise(list(catalogue(corpus)), frozen.tokenizer, limits)
    return encode_items(model.eval(), tokens, limits, CPU)


def test_adaptation_improves_validation_and_keeps_the_best_epoch(adapted, pretrained, domain):
    assert adapted.curve[0]["epoch"] == 0
    values = [row["ndcg@10"] for row in adapted.curve]
    assert max(values) > 1.5 * values[0]
    assert values[0] == pytest.approx(ndcg(pretrained[0], domain))
    assert adapted.facts["valid_ndcg@10"] == max(values)
    assert adapted.facts["best_epoch"] == values.index(max(values))
    assert ndcg(adapted.files, domain) == pytest.approx(max(values))


def end_of_first_stage(adapted, patience=PATIENCE):
    """The first epoch that is so many epochs behind the best one until then, or the last one there is."""
    values = [row["ndcg@10"] for row in adapted.curve]
    behind = (n for n in range(patience, EPOCHS) if n - int(np.argmax(values[: n + 1])) >= patience)
    return next(behind, EPOCHS)


def test_the_first_stage_encodes_the_items_anew_and_the_second_keeps_the_table_of_the_best_epoch(
    adapted, pretrained, domain
):
    frozen = open_frozen(pretrained[0])
    tables = [state["item_embedding.weight"] for state in adapted.states]
    values = [row["ndcg@10"] for row in adapted.curve]
    stopped = end_of_first_stage(adapted)
    first, second = range(1, stopped + 1), range(stopped + 1, len(tables))
    assert len(second) >= SECOND_PATIENCE
    best = int(np.argmax(values[: stopped + 1]))
    assert 0 < best < stopped
    for epoch in first:
        torch.testing.assert_close(tables[epoch], encoded(frozen, adapted.states[epoch - 1], domain))
        assert not torch.equal(tables[epoch], tables[epoch - 1]) or epoch == 1
    for epoch in second:
        assert torch.equal(tables[epoch], tables[best])
    networks = [torch.cat([t.flatten() for n, t in state.items() if n != TABLE]) for state in adapted.states]
    assert not torch.equal(networks[stopped + 1], networks[best])
    step, far = ((networks[stopped + 1] - networks[at]).norm() for at in (best, stopped))
    assert step < far


def test_the_table_that_is_kept_is_that_of_the_best_epoch_and_not_the_items_encoded_anew(adapted, domain):
    kept, best = load_file(adapted.files[WEIGHTS]), adapted.states[adapted.facts["best_epoch"]]
    assert kept.keys() == best.keys()
    for name, tensor in kept.items():
        assert torch.equal(tensor, best[name]), name
    frozen = open_frozen(adapted.files)
    assert (frozen.table - encoded(frozen, best, domain)).abs().max() > 0.01
    assert frozen.model.config.items == catalogue_digest(domain)


def test_the_teacher_that_was_adapted_is_left_as_it_was(adapted, pretrained):
    again = open_frozen(pretrained[0])
    network, curve = adapt(again, Job(None, adapt_settings(epochs=1, second_epochs=0), CPU), circle(0, step=7))
    stored = load_file(pretrained[0][WEIGHTS])
    assert all(torch.equal(tensor, stored[name]) for name, tensor in again.model.state_dict().items())
    assert [row["epoch"] for row in curve] == [0, 1]
    assert not network.training


def test_without_a_training_item_there_is_nothing_to_adapt_to(pretrained):
    corpus = circle(0, 3)
    short = replace(corpus, offsets=np.array([0, 2, 4, 6]), sequence=corpus.sequence[:6])
    with pytest.raises(UserError, match="nothing to train on"):
        adapt(open_frozen(pretrained[0]), Job(None, adapt_settings(), CPU), short)


@given(st.integers(0, 50), st.integers(1, 500))
def test_the_learning_rate_rises_and_then_is_what_is_left_of_all_steps(warmup, total):
    factors = [rate(step, warmup, total) for step in range(warmup + total + 5)]
    assert factors[:warmup] == [step / warmup for step in range(warmup)]
    assert factors[warmup:] == [max(0.0, 1 - step / total) for step in range(warmup, warmup + total + 5)]


def test_a_row_is_a_random_training_item_of_each_user_and_what_came_before_it(pretrained, domain):
    frozen = open_frozen(pretrained[0])
    lesson = Lesson(Adapted(frozen.model, domain.n_items), frozen, Job(None, adapt_settings(), CPU), domain)
    seen = {}
    for seed in range(80):
        rows = np.concatenate(lesson.batches(np.random.default_rng(seed)))
        users = np.searchsorted(domain.offsets, rows[:, 0], side="right") - 1
        assert sorted(users.tolist()) == list(range(domain.n_users))
        np.testing.assert_array_equal(rows[:, 0] - domain.offsets[users], rows[:, 1])
        for user, items in zip(users.tolist(), rows[:, 1].tolist(), strict=True):
            seen.setdefault(user, set()).add(items)
    for user, length in enumerate((domain.lengths - HELD_OUT).tolist()):
        assert seen[user] == set(range(length))


# --- interrupted and exported


class Interrupted(Exception):
    """Stands for whatever ends a process between two epochs."""


def stopped_and_resumed(store, pretrained, after, **changed):
    """A brief adaptation that ended after some epoch and was started again, and what that said."""
    address, notes = Address("teachers", {"c": 1}), []

    def run(on_epoch, note=lambda _: None):
        settings, start = adapt_settings(patience=BRIEF_PATIENCE, **changed), pretrained[0]
        return adapt_teacher(store, address, training, settings, start, DomainData(FEW), CPU, on_epoch, note)

    def stop(row):
        if row["epoch"] == after:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(stop)
    artifact = run(lambda _: None, notes.append)
    assert notes == [f"goes on after epoch {after} of an interrupted run"]
    return artifact


@pytest.mark.parametrize("behind", [-1, 0, 2], ids=["in the first stage", "between the stages", "in the second stage"])
def test_an_interrupted_adaptation_goes_on_to_the_same_bytes(brief, pretrained, tmp_path, behind):
    artifact = stopped_and_resumed(Store(tmp_path), pretrained, end_of_first_stage(brief, BRIEF_PATIENCE) + behind)
    for name in FILES:
        assert sha256_file(artifact.path / name) == sha256_file(brief.files[name]), name


def test_contrast_trains_the_items_too_and_ends_with_the_first_stage(adapt_into, pretrained, tmp_path):
    """The table is encoded again behind each of its epochs; a second stage does not go on with it."""
    kept = adapt_into(FEW, patience=BRIEF_PATIENCE, contrast_epochs=EPOCHS)
    frozen, stopped = open_frozen(pretrained[0]), end_of_first_stage(kept, BRIEF_PATIENCE)
    for epoch in range(1, stopped + 1):
        state = kept.states[epoch]
        torch.testing.assert_close(state[TABLE], encoded(frozen, state, FEW))
    best = int(np.argmax([row["ndcg@10"] for row in kept.curve[: stopped + 1]]))
    for state in kept.states[stopped + 1 :]:
        assert torch.equal(state[TABLE], kept.states[best][TABLE])
    artifact = stopped_and_resumed(Store(tmp_path), pretrained, stopped + 1, contrast_epochs=EPOCHS)
    for name in FILES:
        assert sha256_file(artifact.path / name) == sha256_file(kept.files[name]), name


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


@pytest.mark.parametrize("half", [False, True])
def test_what_is_exported_opens_as_the_same_teacher(adapted, domain, tmp_path, half):
    training.export(adapted.files[WEIGHTS].parent, tmp_path / "out", half)
    settings = Settings(checkpoint=str(tmp_path / "out"), precision="float32")
    files = settings.files("circle", "teachers.rec")
    assert {path.name for path in files.values()} == {path.name for path in (tmp_path / "out").iterdir()} == set(FILES)
    dtypes = {tensor.dtype for tensor in load_file(files[WEIGHTS]).values()}
    assert dtypes == {torch.float16 if half else torch.float32}
    teachers = [open_teacher(Opening(settings, each, domain, None, CPU)) for each in (files, adapted.files)]
    scores = [teacher.queries(0, domain.n_users, 8) @ teacher.item_vectors().T for teacher in teachers]
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=0.3 if half else 0)
