"""Two-stage adaptation of Recformer: it learns, keeps its best epoch and table, can be interrupted and exported."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_recformer import CPU, FILES, Interrupted, circle, pretrained_in

from ckd.stages.evaluate.metrics import metrics
from ckd.stages.evaluate.ranking import rank_targets
from ckd.stages.pretrain.train import adapt_teacher
from ckd.stages.teachers.checkpoint import catalogue_digest
from ckd.stages.teachers.contract import DomainData, Job, Opening
from ckd.stages.teachers.frozen import WEIGHTS
from ckd.stages.teachers.recformer import AdaptSettings, Settings, open_teacher, training
from ckd.stages.teachers.recformer.adapt import Adapted, Lesson, adapt, rate
from ckd.stages.teachers.recformer.checkpoint import open_frozen
from ckd.stages.teachers.recformer.encode import encode_items
from ckd.stages.teachers.recformer.network import Recformer
from ckd.stages.teachers.recformer.tokens import catalogue, tokenise
from ckd.storage.corpus import HELD_OUT
from ckd.storage.errors import UserError
from ckd.storage.files import sha256_file
from ckd.storage.keys import Address
from ckd.storage.progress import forget_training, training_states
from ckd.storage.store import Store

EPOCHS, PATIENCE, BRIEF_PATIENCE, SECOND_PATIENCE = 25, 6, 2, 3
TABLE = "item_embedding.weight"
FEW = circle(0, step=7)


@pytest.fixture(scope="module")
def domain():
    """Users of another step than those of the sources."""
    return circle(0, 200, step=7)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return pretrained_in(tmp_path_factory.mktemp("pretrained"))


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
