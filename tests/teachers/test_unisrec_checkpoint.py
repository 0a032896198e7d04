"""A frozen UniSRec on disk: what is opened, and the one line that anything else is answered with."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ckd.stages.teachers.contract import DomainData, Job, Opening, TextVectors
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS, digests
from ckd.stages.teachers.unisrec import AdaptSettings, Settings, open_teacher
from ckd.stages.teachers.unisrec.checkpoint import (
    catalogue_digest,
    load_config,
    load_model,
    save_config,
    save_weights,
)
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.stages.teachers.unisrec.training import adapt_into, export
from ckd.storage.errors import UserError
from ckd.storage.files import sha256_file
from ckd.storage.keys import Address
from ckd.storage.store import Store

CPU = torch.device("cpu")
GATE = "moe_adaptor.w_gate"


@pytest.fixture
def folder(world, tmp_path):
    """A copy of the world's teacher, to be harmed."""
    return shutil.copytree(world.teacher, tmp_path / "teacher")


@pytest.fixture
def opened(world):
    """A function that opens a folder for the world's domain."""

    def open_(folder, text=world.text):
        settings = Settings(checkpoint=str(folder))
        files = settings.files("tiny", "teachers.uni")
        return open_teacher(Opening(settings, files, world.corpus, text, CPU, serving=True))

    return open_


@pytest.fixture
def transductive(world, folder):
    """The teacher with an ID table for the world's catalogue."""
    config = load_config(folder)
    model = UniSRec(config.network, config.text_dimensions, world.corpus.n_items)
    model.load_state_dict(load_file(folder / WEIGHTS), strict=False)
    save_weights(model, folder / WEIGHTS)
    changed = {"mode": "transductive", "items": catalogue_digest(world.corpus)}
    save_config(config.model_copy(update=changed), folder / CONFIG)
    return folder


def change_tensors(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def change_config(folder, **changed):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def line_of(opened, folder, **kwargs):
    with pytest.raises(UserError) as caught:
        opened(folder, **kwargs)
    (line,) = str(caught.value).splitlines()
    return line


# --- what is opened


def test_what_is_saved_is_what_is_opened(folder):
    config = load_config(folder)
    model = load_model(folder, config, None)
    assert not model.training
    for name, tensor in load_file(folder / WEIGHTS).items():
        assert torch.equal(model.state_dict()[name], tensor)
    save_config(config, folder / "again.json")
    assert (folder / "again.json").read_bytes() == (folder / CONFIG).read_bytes()


def test_a_teacher_is_identified_by_the_bytes_of_its_two_files(folder):
    settings = Settings(checkpoint=str(folder))
    files = settings.files("tiny", "teachers.uni")
    assert digests(files) == {name: sha256_file(folder / name) for name in (CONFIG, WEIGHTS)}
    (folder / WEIGHTS).unlink()
    with pytest.raises(
        UserError, match=r"^teachers.uni.checkpoint: .*model.safetensors does not exist; such a teacher"
    ):
        settings.files("tiny", "teachers.uni")


def test_an_export_in_half_precision_is_half_as_large_and_opens(folder, tmp_path, opened):
    export(folder, tmp_path / "whole", half=False)
    export(folder, tmp_path / "half", half=True)
    whole, half = opened(tmp_path / "whole").item_vectors(), opened(tmp_path / "half").item_vectors()
    assert torch.equal(whole, opened(folder).item_vectors())
    assert not torch.equal(whole, half)
    torch.testing.assert_close(half, whole, rtol=0, atol=5e-3)
    assert (tmp_path / "half" / WEIGHTS).stat().st_size < 0.7 * (folder / WEIGHTS).stat().st_size


def test_an_id_table_of_this_catalogue_is_opened(transductive, opened, world):
    ids = load_file(transductive / WEIGHTS)["item_embedding.weight"]
    assert ids.shape[0] == world.corpus.n_items
    assert opened(transductive).item_vectors().shape[0] == world.corpus.n_items


# --- what is not


def test_a_missing_tensor_is_named_with_the_shape_it_should_have(folder, opened):
    change_tensors(folder, lambda tensors: tensors.pop(GATE))
    assert line_of(opened, folder) == f"{folder / WEIGHTS}: tensor {GATE} is missing; expected shape [16, 3]"


def test_an_unknown_tensor_is_named(folder, opened):
    change_tensors(folder, lambda tensors: tensors.update(extra=torch.zeros(1)))
    said = f"{folder / WEIGHTS}: tensor extra is not part of the UniSRec that config.json describes"
    assert line_of(opened, folder) == said


def test_a_tensor_of_another_shape_is_named_with_both_shapes(folder, opened):
    change_tensors(folder, lambda tensors: tensors.update({GATE: torch.zeros(3, 16)}))
    said = f"{folder / WEIGHTS}: tensor {GATE} has shape [3, 16], config.json asks for [16, 3]"
    assert line_of(opened, folder) == said


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_a_number_is_named(folder, opened, value):
    change_tensors(folder, lambda tensors: tensors[GATE].__setitem__((2, 1), value))
    assert line_of(opened, folder) == f"{folder / WEIGHTS}: tensor {GATE} holds NaN or infinity"


@pytest.mark.parametrize("content", [b"", b"\x80\x04not safetensors", b"PK\x03\x04" + bytes(60)])
def test_what_is_not_safetensors_is_not_opened(folder, opened, content):
    (folder / WEIGHTS).write_bytes(content)
    assert line_of(opened, folder).startswith(f"{folder / WEIGHTS} cannot be opened as safetensors: ")


def test_a_pickle_in_place_of_the_weights_is_not_run(folder, opened):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("foreign code ran",)

    torch.save({"state_dict": Bomb()}, folder / WEIGHTS)
    assert "cannot be opened as safetensors" in line_of(opened, folder)


def test_a_torn_file_of_weights_is_not_opened(folder, opened):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-7])
    assert "cannot be opened as safetensors" in line_of(opened, folder)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_missing_file_is_named(folder, opened, name):
    (folder / name).unlink()
    assert name in line_of(opened, folder)


def test_another_text_encoder_is_named_with_the_mend(folder, opened, world):
    other = TextVectors(world.text.vectors, "f" * 64)
    assert line_of(opened, folder, text=other) == (
        f"{folder}: this teacher reads text vectors of the encoder with SHA-256 {world.text.encoder[:12]}..., "
        "text.encoder gives ffffffffffff...; set text.encoder to the one it was trained with"
    )


def test_a_checkpoint_that_does_not_say_its_encoder_is_checked_by_the_width_only(folder, opened, world):
    change_config(folder, text_encoder=None)
    other = TextVectors(world.text.vectors, "f" * 64)
    assert torch.equal(opened(folder, other).item_vectors(), opened(folder).item_vectors())
    assert line_of(opened, folder, text=TextVectors(world.text.vectors[:, :5], "f" * 64)) == (
        f"{folder}: this teacher reads text vectors of 16 dimensions, the domain's have 5; "
        "set text.encoder to the one it was trained with, or bring such vectors"
    )


def test_vectors_that_a_user_brought_are_checked_by_the_width_only(folder, opened, world):
    brought = TextVectors(world.text.vectors, None)
    assert torch.equal(opened(folder, brought).item_vectors(), opened(folder).item_vectors())


def test_texts_made_in_another_way_than_the_teacher_was_trained_on_are_refused(folder, opened, world):
    way = {"fields": ["title"], "style": "plain", "pooling": "mean"}
    change_config(folder, text=way)
    same = TextVectors(world.text.vectors, world.text.encoder, way)
    assert torch.equal(opened(folder, same).item_vectors(), opened(folder).item_vectors())
    other = TextVectors(world.text.vectors, world.text.encoder, way | {"pooling": "cls"})
    assert line_of(opened, folder, text=other) == (
        f"{folder}: this teacher was trained on texts with text.pooling mean, the configuration has cls; "
        "set text.pooling to what it was trained with"
    )


def test_an_id_table_of_another_catalogue_is_refused(transductive, opened, world):
    """As many items, but not the same ones: the shape alone would not tell."""
    change_config(transductive, items="0" * 64)
    assert line_of(opened, transductive) == (
        f"{transductive}: this teacher has an ID table for another catalogue than the domain's "
        f"{world.corpus.n_items} items; take a teacher without such a table, "
        "the pre-trained or an inductive one, and adapt that to this domain"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", ": not JSON: Expecting property name"),
        ("[]", ": not JSON: "),
        ('{"kind": "recformer"}', " is of a teacher of kind recformer; set kind: recformer, "),
        ('{"format": 2}', ": format: "),
    ],
)
def test_a_configuration_of_something_else_is_answered_with_its_place(folder, opened, text, said):
    whole = json.loads((folder / CONFIG).read_text())
    given = json.dumps(whole | json.loads(text)) if text.startswith('{"') else text
    (folder / CONFIG).write_text(given)
    assert line_of(opened, folder).startswith(f"{folder / CONFIG}{said}")


def test_a_configuration_that_contradicts_itself_is_answered_with_its_place(folder, opened):
    network = json.loads((folder / CONFIG).read_text())["network"]
    change_config(folder, network=network | {"heads": 3})
    assert "network: " in line_of(opened, folder)
    assert "must be a multiple of heads (3)" in line_of(opened, folder)
    change_config(folder, network=network | {"depth": 3})
    assert line_of(opened, folder).startswith(f"{folder / CONFIG}: network.depth: ")


# --- adaptation of one


@pytest.fixture
def adapted(world, tmp_path):
    """A function that adapts a folder to the world's domain; returns the new folder."""

    def run(start, **settings):
        store = Store(tmp_path / "store")
        chosen = AdaptSettings(**({"epochs": 1, "batch_size": 32} | settings))
        files = Settings(checkpoint=str(start)).files("tiny", "teachers.uni")
        with store.draft(Address("teachers", {"a": 1})) as draft:
            facts = adapt_into(Job(draft, chosen, CPU), files, DomainData(world.corpus, world.text))
            return draft.commit(facts).path

    return run


@pytest.mark.parametrize("mode", ["inductive", "transductive"])
def test_an_adapted_teacher_opens_and_says_what_it_is(adapted, folder, opened, world, mode):
    found = adapted(folder, mode=mode)
    config = load_config(found)
    assert config.mode == mode
    assert config.items == (catalogue_digest(world.corpus) if mode == "transductive" else None)
    assert config.text_encoder == world.text.encoder
    assert opened(found).item_vectors().shape == (world.corpus.n_items, 8)


def test_a_teacher_with_an_id_table_can_be_adapted_further_with_it(adapted, transductive):
    ids = load_file(transductive / WEIGHTS)["item_embedding.weight"]
    found = adapted(transductive, mode="transductive", learning_rate=1e-9)
    torch.testing.assert_close(load_file(found / WEIGHTS)["item_embedding.weight"], ids, rtol=0, atol=1e-6)


def test_a_teacher_with_an_id_table_is_not_adapted_without_it(adapted, transductive):
    with pytest.raises(UserError, match=r"has an item ID table.*adapt.mode: transductive"):
        adapted(transductive, mode="inductive")
