"""Item text vectors: a real encoder on disk, pooled by hand; how encoders are found and what is said if not."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, RobertaConfig, RobertaModel

from ckd.stages.text import encode
from ckd.stages.text.encode import batches_by_length, encode_corpus, encode_texts, item_texts
from ckd.stages.text.encoder import WEIGHTS, Encoder, locate_encoder
from ckd.stages.text.settings import TextSettings
from ckd.storage.corpus import TEXT_FIELDS, Corpus
from ckd.storage.errors import UserError
from ckd.storage.files import sha256_file
from ckd.storage.store import Store
from ckd.storage.vectors import read_vectors

CPU = torch.device("cpu")
TEXTS = ["red tape", "", "a large steel box of paper. ink. glue", "blue", "pen " * 40, "ünknown zeichen", "red tape"]


@pytest.fixture(scope="module")
def encoder(world):
    return locate_encoder(str(world.encoder))


@pytest.fixture
def folder(world, tmp_path):
    """A copy of the encoder's folder, to be harmed."""
    return shutil.copytree(world.encoder, tmp_path / "encoder")


def pooled_by_hand(folder, text, max_tokens):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    ids = tokenizer(text, truncation=True, max_length=max_tokens)["input_ids"]
    with torch.no_grad():
        hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0].double().numpy()
    return len(ids), sum(hidden) / len(ids)


# --- vectors


@pytest.mark.parametrize("max_tokens", [8, 12, 32])
def test_a_vector_is_the_mean_over_the_tokens_of_its_text(encoder, max_tokens):
    found = encode_texts(TEXTS, encoder, max_tokens, CPU)
    assert found.dtype == np.float32
    for text, vector in zip(TEXTS, found, strict=True):
        tokens, expected = pooled_by_hand(encoder.folder, text, max_tokens)
        assert tokens <= max_tokens
        np.testing.assert_allclose(vector, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("pooling", "index"), [("cls", 0), ("last", -1)])
def test_a_vector_is_that_of_the_first_or_last_token_where_that_is_asked_for(encoder, pooling, index):
    tokenizer, model = AutoTokenizer.from_pretrained(encoder.folder), AutoModel.from_pretrained(encoder.folder)
    found = encode_texts(TEXTS, encoder, 32, CPU, pooling=pooling)
    for text, vector in zip(TEXTS, found, strict=True):
        with torch.inference_mode():
            hidden = model(**tokenizer(text, truncation=True, max_length=32, return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(vector, hidden[index].numpy(), rtol=0, atol=1e-5)


def test_who_shares_a_batch_changes_no_vector(encoder, monkeypatch):
    together = encode_texts(TEXTS, encoder, 32, CPU)
    alone = np.concatenate([encode_texts([text], encoder, 32, CPU) for text in TEXTS])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    monkeypatch.setattr(encode, "TOKENS_PER_BATCH", 20)
    np.testing.assert_allclose(encode_texts(TEXTS, encoder, 32, CPU), alone, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(together[0], together[-1])


def test_progress_counts_every_text_once(encoder):
    advanced = []
    encode_texts(TEXTS, encoder, 32, CPU, advanced.append)
    assert sum(advanced) == len(TEXTS)


def test_a_text_without_any_token_is_the_zero_vector(make_encoder, tmp_path):
    """A tokenizer that adds no special tokens makes nothing of an empty text."""
    bare = locate_encoder(str(make_encoder(tmp_path / "bare", special_tokens=False)))
    found = encode_texts(["", "red tape", ""], bare, 8, CPU)
    assert not found[0].any() and not found[2].any()
    np.testing.assert_allclose(found[1], pooled_by_hand(bare.folder, "red tape", 8)[1], rtol=0, atol=1e-5)
    assert not encode_texts(["", ""], bare, 8, CPU).any()


def test_more_tokens_than_the_encoder_has_positions_are_refused(encoder):
    with pytest.raises(UserError, match=r"^text.max_tokens: 33 is more than the 32 tokens that .* reads; set it to 32"):
        encode_texts(TEXTS, encoder, 33, CPU)


def test_places_of_an_encoder_that_counts_from_behind_its_padding(encoder, tmp_path):
    """RoBERTa's 514 positions are of 512 tokens."""
    config = RobertaConfig(
        vocab_size=200,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=18,
        pad_token_id=1,
    )
    RobertaModel(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(encoder.folder).save_pretrained(tmp_path)
    small = Encoder(tmp_path, {}, "text")
    long = ["tape " * 40]
    with pytest.raises(UserError, match=r"^text.max_tokens: 17 is more than the 16 tokens .*; set it to 16 or less$"):
        encode_texts(long, small, 17, CPU)
    assert encode_texts(long, small, 16, CPU).any()


def test_an_encoder_that_brings_its_own_code_is_not_asked_about_and_not_opened(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    AutoTokenizer.from_pretrained(encoder.folder).save_pretrained(tmp_path)
    own = {"model_type": "of-a-stranger", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(UserError, match=r"^text\.encoder: .* cannot be opened: "):
        encode_texts(["tape"], Encoder(tmp_path, {}, "text"), 8, CPU)
    assert not (tmp_path / "ran").exists()


@given(st.lists(st.integers(1, 300), max_size=60))
def test_batches_hold_every_text_once_and_not_too_many_tokens(lengths):
    found = list(batches_by_length(lengths))
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
    for rows in found:
        assert len(rows) * max(lengths[row] for row in rows) <= encode.TOKENS_PER_BATCH
    longest = [lengths[row] for rows in found for row in rows]
    assert longest == sorted(longest, reverse=True)


def test_a_text_is_its_fields_in_the_order_asked_for_without_those_it_lacks():
    columns = {
        "title": ["Tape ", None, "", "Pen"],
        "brand": ["Acme", "Acme", None, None],
        "categories": [None, "Office, Tape", None, None],
        "description": ["long"] * 4,
    }
    items = pa.table({name: pa.array(columns[name], pa.string()) for name in TEXT_FIELDS})
    corpus = Corpus("key", items, pa.array([]), np.zeros(1, np.int64), np.empty(0, np.int32))
    assert item_texts(corpus, TextSettings()) == ["Tape. Acme", "Office, Tape. Acme", "", "Pen"]
    assert item_texts(corpus, TextSettings(fields=("brand", "title"))) == ["Acme. Tape", "Acme", "", "Pen"]


def test_vectors_are_kept_with_the_digest_of_the_weights_and_not_computed_twice(world, encoder, tmp_path):
    store, settings = Store(tmp_path / "store"), TextSettings(max_tokens=12)
    advanced = []
    first = encode_corpus(store, world.corpus, settings, encoder, CPU, advanced.append)
    assert sum(advanced) == world.corpus.n_items
    assert first.inputs["encoder"][WEIGHTS] == sha256_file(world.encoder / WEIGHTS)
    assert first.facts == {"items": 40, "empty": 1, "dimensions": 16}
    texts = item_texts(world.corpus, settings)
    np.testing.assert_array_equal(read_vectors(first), encode_texts(texts, encoder, 12, CPU))
    assert encode_corpus(store, world.corpus, settings, encoder, CPU, advanced.append) == first
    assert sum(advanced) == world.corpus.n_items


def test_a_domain_without_any_text_is_refused_with_the_key_that_maps_columns(world, encoder, tmp_path):
    nothing = pa.nulls(world.corpus.n_items, pa.string())
    items = world.corpus.items
    for name in TEXT_FIELDS:
        items = items.set_column(items.column_names.index(name), name, nothing)
    blank = dataclasses.replace(world.corpus, items=items)
    with pytest.raises(UserError, match=r"no item of corpus .* has any text in title, .*domains\.<name>\.columns"):
        encode_corpus(Store(tmp_path / "store"), blank, TextSettings(max_tokens=12), encoder, CPU)


# --- where an encoder is found


def test_a_local_folder_is_identified_by_its_files(world, folder):
    names = ("config.json", "tokenizer.json", WEIGHTS, "tokenizer_config.json")
    found = locate_encoder(str(folder))
    assert found == Encoder(folder, {name: sha256_file(folder / name) for name in names})
    assert locate_encoder(str(world.encoder)).digests == found.digests


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_another_file_that_decides_how_a_text_is_read_is_another_encoder(folder, name):
    before = locate_encoder(str(folder)).digests
    (folder / name).write_text((folder / name).read_text() + "\n")
    assert locate_encoder(str(folder)).digests != before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", WEIGHTS])
def test_a_folder_that_lacks_a_file_is_answered_with_its_name(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError) as caught:
        locate_encoder(str(folder))
    assert str(caught.value) == (
        f"text.encoder: {folder} has no {name}; a folder with config.json, tokenizer.json, {WEIGHTS} is needed"
    )


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all"])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(name):
    with pytest.raises(UserError, match=f"^text.encoder: there is no folder {name}$"):
        locate_encoder(name)


def test_a_name_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"^text.encoder: 'a/b/c' is neither a folder nor a name on the hub"):
        locate_encoder("a/b/c")


@pytest.mark.parametrize("download", [True, False])
def test_a_name_that_only_the_hub_knows_is_unknown_without_a_network(tmp_path, download):
    """In a process of its own: where the hub's cache is, and whether it may be asked, is read at import."""
    code = (
        "from ckd.stages.text.encoder import locate_encoder; from ckd.storage.errors import UserError\n"
        f"try: print(locate_encoder('nobody/no-such-encoder', download={download}))\n"
        "except UserError as error: print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    (line,) = done.stdout.splitlines()
    if download:
        assert line.startswith("text.encoder: nobody/no-such-encoder is not on this machine and the hub cannot be")
        assert "download it to a folder and name that folder" in line
    else:
        assert line == "None"


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_weights_that_are_not_safetensors_are_answered_with_one_line(folder, content):
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(UserError, match=r"^text.encoder: .*encoder cannot be opened: "):
        encode_texts(TEXTS, locate_encoder(str(folder)), 8, CPU)


def test_weights_that_lack_a_layer_are_not_made_up(folder):
    """transformers fills what is missing at random, and the vectors would mean nothing."""
    tensors = load_file(folder / WEIGHTS)
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=r"^text.encoder: .*model.safetensors lacks encoder.layer.1.output.dense.weight"
    ):
        encode_texts(TEXTS, locate_encoder(str(folder)), 8, CPU)


def test_a_pooler_that_is_not_there_is_not_missed(folder, encoder):
    tensors = {name: tensor for name, tensor in load_file(folder / WEIGHTS).items() if not name.startswith("pooler")}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    found = encode_texts(TEXTS, locate_encoder(str(folder)), 8, CPU)
    np.testing.assert_array_equal(found, encode_texts(TEXTS, encoder, 8, CPU))
