"""What is wrong with a Recformer's files is said in one line that names the file and the tensor, field or item."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ckd.stages.teachers.checkpoint import catalogue_digest
from ckd.stages.teachers.contract import Opening
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS
from ckd.stages.teachers.recformer import Settings, open_teacher
from ckd.stages.teachers.recformer.checkpoint import load_weights
from ckd.stages.teachers.recformer.config import load_config
from ckd.stages.teachers.recformer.files import TOKENIZER
from ckd.storage.errors import UserError

CPU = torch.device("cpu")
WORDS = "embeddings.word_embeddings.weight"


@pytest.fixture
def folder(make_recformer, tmp_path):
    """A frozen Recformer that the test may spoil."""
    return make_recformer(tmp_path / "teacher")


@pytest.fixture
def tensors(folder):
    return load_file(folder / WEIGHTS)


def opened(world, checkpoint, **named):
    chosen = Settings(
        checkpoint=str(checkpoint), precision="float32", **{key: str(path) for key, path in named.items()}
    )
    return open_teacher(Opening(chosen, chosen.files("tiny", "teachers.rec"), world.corpus, None, CPU))


def answer(world, checkpoint, **named):
    """The line that answers a mistake."""
    with pytest.raises(UserError) as caught:
        opened(world, checkpoint, **named)
    message = str(caught.value)
    assert "\n" not in message
    return message


def change_json(path, **changed):
    """Set fields of a JSON object; None takes one away."""
    content = json.loads(path.read_text()) | changed
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def with_table(folder, tensors, rows):
    """Write the authors' fine-tuned layout."""
    named = {f"longformer.{name}": tensor for name, tensor in tensors.items()}
    save_file(named | {"item_embedding.weight": torch.randn(rows, 8)}, folder / WEIGHTS)


# --- weights


def test_the_files_open_as_they_are(world, folder):
    assert opened(world, folder).item_vectors().shape == (world.corpus.n_items, 8)


def test_a_missing_tensor_is_named_with_the_shape_that_was_expected(world, folder, tensors):
    del tensors["encoder.layer.1.attention.self.key_global.bias"]
    save_file(tensors, folder / WEIGHTS)
    said = "tensor encoder.layer.1.attention.self.key_global.bias is missing; config.json asks for shape [8]"
    assert answer(world, folder) == f"{folder / WEIGHTS}: {said}"


def test_a_tensor_too_many_is_named(world, folder, tensors):
    save_file(tensors | {"encoder.layer.2.output.dense.bias": torch.zeros(8)}, folder / WEIGHTS)
    assert answer(world, folder).startswith(
        f"{folder / WEIGHTS}: tensor encoder.layer.2.output.dense.bias is not part of"
    )


def test_a_tensor_of_another_shape_is_named_with_both_shapes(world, folder, tensors):
    tensors["embeddings.item_position_embeddings.weight"] = torch.zeros(51, 8)
    save_file(tensors, folder / WEIGHTS)
    message = answer(world, folder)
    assert "tensor embeddings.item_position_embeddings.weight has shape [51, 8], config.json asks for [7, 8]" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_finite_is_named(world, folder, tensors, value):
    tensors["embeddings.LayerNorm.weight"][3] = value
    save_file(tensors, folder / WEIGHTS)
    assert "tensor embeddings.LayerNorm.weight holds NaN or infinity" in answer(world, folder)


def test_whole_numbers_are_no_weights(world, folder, tensors):
    save_file(tensors | {WORDS: tensors[WORDS].long()}, folder / WEIGHTS)
    assert f"tensor {WORDS} is torch.int64" in answer(world, folder)


def test_a_tensor_under_two_names_is_refused(world, folder, tensors):
    save_file(tensors | {f"longformer.{WORDS}": tensors[WORDS] + 1}, folder / WEIGHTS)
    assert f"tensor {WORDS} is there twice" in answer(world, folder)


def test_a_file_that_leaves_out_the_word_embeddings_says_how_to_put_them_back(world, folder, tensors):
    del tensors[WORDS]
    wrapped = {f"_forward_module.model.longformer.{name}": tensor for name, tensor in tensors.items()}
    torch.save(wrapped, folder / "pytorch_model.bin")
    message = answer(world, folder / "pytorch_model.bin")
    assert message.startswith(f"{folder / 'pytorch_model.bin'}: tensor {WORDS} is missing")
    assert "convert_pretrain_ckpt.py" in message


@pytest.mark.parametrize(
    "wrapper", ["", "longformer.", "model.longformer.", "_forward_module.model.longformer.", "module."]
)
def test_whatever_stands_before_the_names_the_weights_are_the_same(world, folder, tensors, wrapper):
    torch.save({f"{wrapper}{name}": tensor for name, tensor in tensors.items()}, folder / "weights.bin")
    assert torch.equal(opened(world, folder / "weights.bin").item_vectors(), opened(world, folder).item_vectors())


@pytest.mark.parametrize("content", [{"state_dict": {"a": 1}}, {}, [1, 2], {"epoch": 3}])
def test_a_file_of_something_else_is_refused(world, folder, content):
    torch.save(content, folder / "weights.bin")
    assert answer(world, folder / "weights.bin").startswith(f"{folder / 'weights.bin'}")


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(world, folder, tmp_path, write):
    write({WORDS: Bomb(tmp_path / "went off")}, folder / "weights.bin")
    assert "without running code" in answer(world, folder / "weights.bin")
    assert not (tmp_path / "went off").exists()


@pytest.fixture(scope="module")
def whole(make_recformer, tmp_path_factory):
    """A frozen Recformer whose weights torch saved, its configuration, and an empty file beside them."""
    folder = make_recformer(tmp_path_factory.mktemp("torn"))
    torch.save(load_file(folder / WEIGHTS), folder / "weights.bin")
    return (folder / "weights.bin").read_bytes(), load_config(folder / CONFIG), folder / "torn.bin"


@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_torn_or_damaged_file_is_refused_or_opens_to_a_whole_network(whole, data):
    content, config, path = whole
    damaged = bytearray(content[: data.draw(st.sampled_from([len(content), len(content) - 1, len(content) // 2]))])
    for place in data.draw(st.lists(st.integers(0, min(4_000, len(damaged)) - 1), max_size=3)):
        damaged[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(damaged))
    try:
        model, _ = load_weights(path, config)
    except UserError as error:
        assert str(error).startswith(str(path))
        assert "\n" not in str(error)
    else:
        assert all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())


def test_a_file_that_is_no_safetensors_is_refused(world, folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9])
    assert "cannot be opened as safetensors" in answer(world, folder)


# --- configuration


@pytest.mark.parametrize(
    "field", ["token_type_size", "max_token_num", "max_item_embeddings", "max_attr_num", "max_attr_length", "temp"]
)
def test_a_plain_longformer_configuration_lacks_the_authors_fields(world, folder, field):
    change_json(folder / CONFIG, **{field: None})
    message = answer(world, folder)
    assert message.startswith(
        f"{folder / CONFIG}: {field} is missing; write all fields of the authors' RecformerConfig"
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"hidden_act": "swooosh"}, "hidden_act: 'swooosh' is no activation"),
        ({"attention_window": [4, 5]}, "attention_window must hold even numbers, not [4, 5]"),
        ({"attention_window": [4]}, "attention_window has 1 entries, but num_hidden_layers is 2"),
        ({"num_attention_heads": 3}, "hidden_size (8) must be a multiple of num_attention_heads (3)"),
        ({"max_position_embeddings": 41}, "max_position_embeddings (41) must be at least max_token_num + 2 (42)"),
        ({"pad_token_id": 0}, "bos_token_id and pad_token_id must be 0 and 1"),
        ({"pooler_type": "avg"}, "pooler_type must be cls, not 'avg'"),
        ({"temp": 0}, "temp: "),
        ({"layer_norm_eps": "small"}, "layer_norm_eps: "),
    ],
)
def test_a_wrong_field_is_named(world, folder, changed, said):
    change_json(folder / CONFIG, **changed)
    message = answer(world, folder)
    assert message.startswith(f"{folder / CONFIG}: ")
    assert said in message


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
def test_a_configuration_that_is_no_json_object_is_refused(world, folder, text):
    (folder / CONFIG).write_bytes(text.encode("latin1"))
    assert answer(world, folder).startswith(f"{folder / CONFIG}: ")


def test_the_configuration_may_lie_elsewhere(world, folder, tmp_path):
    shutil.move(folder / CONFIG, tmp_path / "recformer.json")
    change_json(tmp_path / "recformer.json", hidden_act="swooosh")
    assert answer(world, folder) == (
        f"teachers.rec.checkpoint: there is no {CONFIG} beside {folder / WEIGHTS}; a Recformer's weights need that of "
        "its RecformerConfig: put it there, or name it under teachers.rec.config"
    )
    assert answer(world, folder, config=tmp_path / "recformer.json").startswith(str(tmp_path / "recformer.json"))


def test_a_folder_without_weights_asks_for_the_weights_file_itself(world, folder):
    (folder / WEIGHTS).rename(folder / "recformer_ckpt.bin")
    assert answer(world, folder).startswith(
        f"teachers.rec.checkpoint: {folder} holds no {WEIGHTS}; name the weights file"
    )


def test_weights_that_are_not_there_are_what_is_missing(world, folder):
    assert answer(world, folder / "no.bin").startswith(f"teachers.rec.checkpoint: {folder / 'no.bin'} does not exist")
    assert answer(world, folder / "no" / "no.bin").startswith("teachers.rec.checkpoint: ")


# --- tokenizer


def test_a_missing_tokenizer_says_what_was_looked_for(world, folder):
    (folder / TOKENIZER).unlink()
    message = answer(world, folder)
    assert message.startswith(
        f"teachers.rec.tokenizer: {folder} holds neither {TOKENIZER} nor vocab.json and merges.txt"
    )


def test_a_tokenizer_of_another_vocabulary_is_refused(world, folder, make_recformer, tmp_path):
    content = json.loads((folder / TOKENIZER).read_text())
    vocabulary, mask = content["model"]["vocab"], content["added_tokens"][-1]
    rarest = max(vocabulary, key=vocabulary.get)
    del vocabulary[rarest]
    content["model"]["merges"] = content["model"]["merges"][:-1]
    mask["id"] = len(vocabulary)
    (tmp_path / "other.json").write_text(json.dumps(content))
    message = answer(world, folder, tokenizer=tmp_path / "other.json")
    known = load_config(folder / CONFIG).vocab_size
    assert f"other.json knows {known - 1} tokens, config.json has vocab_size {known}" in message


def test_special_tokens_of_other_ids_are_refused(world, folder, tmp_path):
    text = (
        (folder / TOKENIZER).read_text().replace("<pad>", "<other>").replace("</s>", "<pad>").replace("<other>", "</s>")
    )
    (tmp_path / "other.json").write_text(text)
    assert "other.json: token <pad> has id 2; in a Recformer's tokenizer it has id 1" in answer(
        world, folder, tokenizer=tmp_path / "other.json"
    )
    (tmp_path / "other.json").write_text((folder / TOKENIZER).read_text().replace("<mask>", "[MASK]"))
    assert "there is no token <mask>" in answer(world, folder, tokenizer=tmp_path / "other.json")


def test_a_torn_tokenizer_is_refused(world, folder):
    (folder / TOKENIZER).write_text((folder / TOKENIZER).read_text()[:500])
    assert answer(world, folder).startswith(f"{folder / TOKENIZER} cannot be read as a tokenizer")


# --- item tables


def test_a_fine_tuned_table_needs_the_items_of_its_rows(world, folder, tensors):
    with_table(folder, tensors, world.corpus.n_items)
    message = answer(world, folder)
    assert message.startswith(f"{folder / WEIGHTS}: holds a fine-tuned item table of {world.corpus.n_items} rows")
    assert "item_ids" in message


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda ids: ids[:-1], "names no item for row 40 of the item table"),
        (lambda ids: [*ids, "one more"], "item 'one more' has row 41, the item table has rows 0 to 40"),
        (lambda ids: [*ids[:-1], ids[0]], "item 'item-00' has two rows, 0 and 40"),
        (
            lambda ids: {item: 3 if row == 7 else row for row, item in enumerate(ids)},
            "row 3 is of two items, 'item-03' and",
        ),
        (
            lambda ids: ["other" if item == "item-20" else item for item in ids],
            "has no row for 1 of the domain's 40 items",
        ),
        (lambda ids: {item: str(row) for row, item in enumerate(ids)}, "a list of item ids by row, or an object"),
        (lambda ids: "ids", "a list of item ids by row, or an object"),
        (lambda ids: [[item] for item in ids], "a list of item ids by row, or an object"),
    ],
)
def test_item_ids_that_do_not_name_each_row_once_are_refused(world, folder, tensors, tmp_path, spoil, said):
    """The table has a row more than the domain has items: an item that nobody of the domain knows."""
    ids = [*world.corpus.items["item_id"].to_pylist(), "unknown here"]
    with_table(folder, tensors, len(ids))
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    assert opened(world, folder, item_ids=tmp_path / "ids.json").item_vectors().shape == (world.corpus.n_items, 8)
    (tmp_path / "ids.json").write_text(json.dumps(spoil(ids)))
    message = answer(world, folder, item_ids=tmp_path / "ids.json")
    assert message.startswith(f"{tmp_path / 'ids.json'}: ")
    assert said in message


def test_an_item_named_twice_in_a_json_object_is_seen(world, folder, tensors, tmp_path):
    with_table(folder, tensors, 2)
    (tmp_path / "smap.json").write_text('{"a": 0, "a": 1}')
    assert "item 'a' has two rows, 0 and 1" in answer(world, folder, item_ids=tmp_path / "smap.json")


def test_missing_item_ids_are_named_by_their_key(world, folder, tmp_path):
    assert answer(world, folder, item_ids=tmp_path / "no.json").startswith("teachers.rec.item_ids: ")


def test_item_ids_without_a_table_are_a_mistake(world, folder, tmp_path):
    (tmp_path / "smap.json").write_text("{}")
    assert "holds no item table" in answer(world, folder, item_ids=tmp_path / "smap.json")


def test_a_table_of_another_width_is_refused(world, folder, tensors):
    save_file(tensors | {"item_embedding.weight": torch.zeros(40, 9)}, folder / WEIGHTS)
    assert "tensor item_embedding.weight has shape [40, 9], expected [items, 8]" in answer(world, folder)


def test_a_teacher_adapted_to_another_catalogue_is_refused(world, folder, tensors):
    with_table(folder, tensors, world.corpus.n_items)
    change_json(folder / CONFIG, items=catalogue_digest(world.corpus))
    assert opened(world, folder).item_vectors().shape == (world.corpus.n_items, 8)
    change_json(folder / CONFIG, items="0" * 64)
    assert "item vectors of another catalogue than the domain's 40 items" in answer(world, folder)
