"""SASRec as a teacher: what its training reads, what its labels are, and what is not opened."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from ckd.stages.evaluate.metrics import metrics
from ckd.stages.evaluate.ranking import rank_targets
from ckd.stages.students.sasrec.network import SASRec
from ckd.stages.teachers.checkpoint import catalogue_digest, save_config, save_weights
from ckd.stages.teachers.contract import DomainData, Job, Opening
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS
from ckd.stages.teachers.sasrec import Settings, TrainSettings, open_teacher
from ckd.stages.teachers.sasrec.teacher import Config, SASRecTeacher
from ckd.stages.teachers.sasrec.training import adapt_into, export
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError
from ckd.storage.files import sha256_file
from ckd.storage.keys import Address
from ckd.storage.parquet import read_table
from ckd.storage.store import Store

CPU = torch.device("cpu")
N_ITEMS, USERS = 30, 80
TRAIN = TrainSettings(
    hidden=16, blocks=1, dropout=0.1, max_length=6, epochs=12, patience=12, batch_size=16, learning_rate=0.01
)


@pytest.fixture(scope="module")
def circle():
    """Users walk around a circle of items: what follows is known by construction."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(5, 12, USERS)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    sequence = np.concatenate([(draw.integers(N_ITEMS) + np.arange(n)) % N_ITEMS for n in lengths]).astype(np.int32)
    items = pa.table({"item": np.arange(N_ITEMS, dtype=np.int32), "item_id": [f"i{n:02d}" for n in range(N_ITEMS)]})
    return Corpus("circle", items, pa.array([f"u{n:03d}" for n in range(USERS)]), offsets, sequence)


def poisoned(corpus, back):
    """The same corpus with the item ``back`` from the end of every sequence replaced by another one."""
    sequence = corpus.sequence.copy()
    places = corpus.offsets[1:] - back
    sequence[places] = (sequence[places] + 11) % N_ITEMS
    return Corpus(corpus.key, corpus.items, corpus.user_ids, corpus.offsets, sequence)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function that trains on a corpus; returns the artifact."""

    def train(corpus, settings=TRAIN):
        store = Store(tmp_path_factory.mktemp("store"))
        with store.draft(Address("teachers", {"a": 1})) as draft:
            facts = adapt_into(Job(draft, settings, CPU), {}, DomainData(corpus))
            draft.discard("training-state.pt")
            return draft.commit(facts)

    return train


@pytest.fixture(scope="module")
def clean(trained, circle):
    return trained(circle)


def opened(folder, corpus, serving=False):
    settings = Settings(checkpoint=str(folder))
    return open_teacher(Opening(settings, settings.files("circle", "teachers.s"), corpus, None, CPU, serving))


def curve(artifact):
    return read_table(artifact.path / "curve.parquet").to_pylist()


# --- training


def test_it_learns_a_world_that_can_be_learnt_and_keeps_its_best_epoch(clean, circle):
    teacher = opened(clean.path, circle)
    items = teacher.item_vectors()
    found = {
        split: metrics(rank_targets(lambda u, p: teacher.queries_at(u, p) @ items.T, circle, split), [10])["ndcg@10"]
        for split in ("valid", "test")
    }
    assert found["test"] > 0.5
    assert found["valid"] == pytest.approx(clean.facts["valid_ndcg@10"], abs=1e-6)
    assert clean.facts["valid_ndcg@10"] == max(row["ndcg@10"] for row in curve(clean))
    assert [row["epoch"] for row in curve(clean)] == list(range(1, 13))


def test_test_items_have_no_influence_on_a_single_bit(trained, circle, clean):
    other = trained(poisoned(circle, 1))
    for name in (WEIGHTS, CONFIG):
        assert sha256_file(other.path / name) == sha256_file(clean.path / name)


def test_validation_items_choose_the_epoch_and_are_not_trained_on(trained, circle, clean):
    other = trained(poisoned(poisoned(circle, 1), 2))
    assert [row["loss"] for row in curve(other)] == [row["loss"] for row in curve(clean)]
    assert [row["ndcg@10"] for row in curve(other)] != [row["ndcg@10"] for row in curve(clean)]


def test_training_items_are_what_is_learnt(trained, circle, clean):
    """The poison of the two tests above would be seen if it stood in the training split."""
    assert curve(trained(poisoned(circle, 3)))[0]["loss"] != curve(clean)[0]["loss"]


def test_the_seed_alone_decides(trained, circle, clean):
    assert sha256_file(trained(circle).path / WEIGHTS) == sha256_file(clean.path / WEIGHTS)
    other = trained(circle, TRAIN.model_copy(update={"seed": 1}))
    assert sha256_file(other.path / WEIGHTS) != sha256_file(clean.path / WEIGHTS)


# --- labels


@pytest.fixture(scope="module")
def model(world):
    torch.manual_seed(0)
    network = TRAIN.network.model_copy(update={"max_length": 8, "dropout": 0.0})
    model = SASRec(network, world.corpus.n_items).double().eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.3 * torch.randn(tensor.shape))
    return model


def test_one_pass_per_sequence_gives_what_one_pass_per_history_gives_also_beyond_the_maximum_length(world, model):
    corpus = world.corpus
    assert corpus.lengths.max() - 1 > model.max_length + 5
    found = SASRecTeacher(model, corpus, CPU, torch.float64).queries(0, corpus.n_users, 16)
    positions = corpus.positions()
    for row, (user, position) in enumerate(zip(positions.user, positions.position, strict=True)):
        history = corpus.sequence_of(user)[:position][-model.max_length :]
        with torch.inference_mode():
            own = model.encode(torch.from_numpy(history.astype(np.int64)).unsqueeze(0))[0, -1]
        assert (found[row] - own).abs().max() < 1e-9


def test_the_query_at_a_position_is_the_row_of_that_position(world, model):
    teacher = SASRecTeacher(model, world.corpus, CPU, torch.float64)
    users = np.array([0, 5, 17, 40], np.int32)
    position = (world.corpus.lengths[users] - 1).astype(np.int32)
    rows = torch.from_numpy(world.corpus.position_offsets[users] + position - 1)
    expected = teacher.queries(0, world.corpus.n_users, 16)[rows]
    torch.testing.assert_close(teacher.queries_at(users, position), expected, rtol=0, atol=1e-12)


def test_labels_are_computed_in_float64_and_served_in_float32(clean, circle):
    for serving, dtype in ((False, torch.float64), (True, torch.float32)):
        teacher = opened(clean.path, circle, serving)
        assert (teacher.item_vectors().dtype, teacher.queries(0, 2, 4).dtype) == (dtype, dtype)
    weights = load_file(clean.path / WEIGHTS)
    assert teacher.n_parameters == sum(tensor.numel() for tensor in weights.values()) == clean.facts["parameters"]


# --- what is opened, and what is not


@pytest.fixture
def folder(clean, tmp_path):
    """A copy of the frozen teacher, to be harmed."""
    (tmp_path / "teacher").mkdir()
    for name in (CONFIG, WEIGHTS):
        shutil.copy(clean.path / name, tmp_path / "teacher")
    return tmp_path / "teacher"


def line_of(folder, corpus):
    with pytest.raises(UserError) as caught:
        opened(folder, corpus)
    (line,) = str(caught.value).splitlines()
    return line


def test_an_export_opens_and_in_half_precision_is_half_as_large(clean, circle, tmp_path):
    export(clean.path, tmp_path / "whole", half=False)
    export(clean.path, tmp_path / "half", half=True)
    own, whole, half = (opened(path, circle).item_vectors() for path in (clean.path, *sorted(tmp_path.iterdir())[::-1]))
    assert torch.equal(own, whole)
    torch.testing.assert_close(half, own, rtol=0, atol=5e-3)
    assert (tmp_path / "half" / WEIGHTS).stat().st_size < 0.6 * (clean.path / WEIGHTS).stat().st_size


def test_a_teacher_of_another_catalogue_is_refused_even_of_as_many_items(folder, circle):
    renamed = circle.items.set_column(1, "item_id", pa.array([f"j{n:02d}" for n in range(N_ITEMS)]))
    other = Corpus("other", renamed, circle.user_ids, circle.offsets, circle.sequence)
    assert line_of(folder, other).startswith(
        f"{folder}: this teacher was trained on another catalogue than the domain's {N_ITEMS} items; train one on this"
    )


def test_a_teacher_of_another_kind_is_refused(folder, circle):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": "unisrec"}))
    assert line_of(folder, circle).startswith(f"{path} is of a teacher of kind unisrec; set kind: unisrec, ")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop("norm.bias"), "tensor norm.bias is missing; expected shape [16]"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "tensor extra is not part of the SASRec that "),
        (lambda tensors: tensors["norm.bias"].fill_(float("nan")), "tensor norm.bias holds NaN or infinity"),
        (
            lambda tensors: tensors.update({"norm.bias": torch.zeros(3)}),
            "tensor norm.bias has shape [3], config.json asks for [16]",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_tensor(folder, circle, change, said):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    assert line_of(folder, circle).startswith(f"{folder / WEIGHTS}: {said}")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"^teachers.s.checkpoint: .*{name} does not exist; such a teacher is a"):
        Settings(checkpoint=str(folder)).files("circle", "teachers.s")


def test_what_is_saved_is_what_is_opened(world, model, tmp_path):
    save_weights(model, tmp_path / WEIGHTS)
    network = TRAIN.network.model_copy(update={"max_length": 8, "dropout": 0.0})
    save_config(Config(network=network, items=catalogue_digest(world.corpus)), tmp_path / CONFIG)
    teacher = opened(tmp_path, world.corpus, serving=True)
    assert torch.equal(teacher.item_vectors(), model.item_vectors().detach().float())


def test_it_is_trained_or_opened_but_not_both_and_not_neither():
    for given in ({}, {"train": {}, "checkpoint": "somewhere"}):
        with pytest.raises(ValueError, match=r"give either train .* or checkpoint"):
            Settings(**given)
