"""An artifact's name: what changes it and what must not."""

import json
import math
from pathlib import PurePosixPath

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ckd.stages.precompute.address import item_vectors_address, label_address
from ckd.stages.precompute.settings import LabelSettings
from ckd.stages.pretrain.address import adapt_address, pretrain_address
from ckd.stages.teachers import recformer, sasrec
from ckd.stages.teachers.frozen import digests
from ckd.stages.teachers.unisrec import AdaptSettings, NetworkSettings, PretrainSettings
from ckd.stages.text.address import text_address
from ckd.stages.text.encoder import Encoder
from ckd.stages.text.settings import TextSettings
from ckd.storage import formats
from ckd.storage.folds import Fold, all_folds
from ckd.storage.keys import SHORT, Address, canonical_json

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
LABELS = {
    "teacher": "uni",
    "domain": "office",
    "settings": LabelSettings(),
    "kind": "unisrec",
    "frozen": {"config.json": "c", "model.safetensors": "w"},
    "scoring": {"max_tokens": 512},
    "corpus_key": "corpus",
    "text_key": "text",
}


def reversed_everywhere(value):
    if isinstance(value, dict):
        return {name: reversed_everywhere(inner) for name, inner in reversed(value.items())}
    return [reversed_everywhere(inner) for inner in value] if isinstance(value, list) else value


def label_key(**changed):
    return label_address(**(LABELS | changed)).key


# --- canonical JSON


@given(VALUES)
def test_the_order_in_which_keys_were_given_does_not_matter(value):
    assert canonical_json(reversed_everywhere(value)) == canonical_json(value)


@given(VALUES)
def test_canonical_json_reads_back_as_the_value(value):
    assert json.loads(canonical_json(value)) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [math.nan], {"a": {"b": math.inf}}])
def test_a_number_without_a_json_form_is_refused(value):
    with pytest.raises(ValueError):
        canonical_json(value)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", PurePosixPath("a"), {"a": [lambda: None]}])
def test_an_object_is_refused(value):
    with pytest.raises(TypeError):
        canonical_json(value)


# --- addresses


@given(st.dictionaries(st.text(), VALUES, min_size=1, max_size=4), st.data())
def test_a_key_changes_with_every_input(inputs, data):
    name = data.draw(st.sampled_from(sorted(inputs)))
    other = data.draw(VALUES)
    assume(canonical_json(other) != canonical_json(inputs[name]))
    key = Address("labels", inputs).key
    assert Address("labels", inputs | {name: other}).key != key
    assert Address("labels", {left: value for left, value in inputs.items() if left != name}).key != key


def test_a_key_changes_with_the_kind():
    assert Address("corpus", {"a": 1}).key != Address("text", {"a": 1}).key


def test_partitions_are_not_part_of_the_key():
    plain = Address("labels", {"a": 1})
    partitioned = Address("labels", {"a": 1}, (("teacher", "uni"), ("domain", "office")))
    assert plain.key == partitioned.key
    assert plain.directory == PurePosixPath("labels", plain.key[:SHORT])
    assert partitioned.directory == PurePosixPath(
        "labels", "teacher=uni", "domain=office", f"key={partitioned.key[:SHORT]}"
    )


def test_a_key_of_today_is_a_key_of_tomorrow():
    """A changed canonical form would orphan every store; this is the SHA-256 of the text in the comment."""
    # {"inputs":{"a":1,"b":["ä",0.5,null,true]},"kind":"corpus"}
    address = Address("corpus", {"b": ["ä", 0.5, None, True], "a": 1})
    assert address.key == "15a5ec8e7b5f6a565c2e83c6f83ec57fee9110980055b566842fb301675373be"


@pytest.mark.parametrize(
    "changed",
    [
        {"frozen": {"config.json": "c", "model.safetensors": "other"}},
        {"frozen": {"config.json": "other", "model.safetensors": "w"}},
        {"frozen": {"config.json": "c"}},
        {"frozen": {"config.json": "c", "model.safetensors": "w", "item_ids.json": "i"}},
        {"kind": "another"},
        {"scoring": {"max_tokens": 256}},
        {"scoring": {}},
        {"scoring": {"max_tokens": 512, "precision": "bfloat16"}},
        {"corpus_key": "other"},
        {"text_key": "other"},
        {"text_key": None},
        {"settings": LabelSettings(top_k=99)},
        {"settings": LabelSettings(splits=("train",))},
        {"settings": LabelSettings(state=False)},
        {"settings": LabelSettings(precision="exact")},
        {"settings": LabelSettings(precision="float16")},
    ],
)
def test_what_determines_a_label_changes_its_key(changed):
    assert label_key(**changed) != label_key()


@pytest.mark.parametrize(
    "changed",
    [
        {"settings": LabelSettings(batch_size=1)},
        {"settings": LabelSettings(shard_rows=1)},
        {"settings": LabelSettings(splits=("test", "valid", "train"))},
        {"teacher": "another name"},
        {"domain": "another name"},
    ],
)
def test_what_changes_speed_files_or_names_only_does_not_change_the_key(changed):
    assert label_key(**changed) == label_key()


@pytest.mark.parametrize("name", ["exact", "float32"])
def test_exact_labels_have_the_key_that_they_had_under_the_older_name(name):
    settings = LabelSettings.model_validate({"precision": name})
    assert settings.precision == "exact"
    address = label_address("t", "d", settings, "mine", {}, {}, "corpus", None)
    assert address.inputs["precision"] == "float32"


def test_item_vectors_are_named_by_the_teacher_and_the_domain_whatever_is_stored_of_its_labels():
    kind, *opinion = "mine", {"config.json": "c", "model.safetensors": "w"}, {"precision": "float32"}, "corpus", "text"
    others = [
        ("other", *opinion),
        (kind, {"config.json": "c", "model.safetensors": "other"}, *opinion[1:]),
        (kind, {**opinion[0], "item_ids.json": "i"}, *opinion[1:]),
        (kind, opinion[0], {"precision": "float64"}, *opinion[2:]),
        (kind, *opinion[:2], "other", "text"),
        (kind, *opinion[:3], None),
    ]
    addresses = [item_vectors_address(*each) for each in ((kind, *opinion), *others)]
    assert len({address.key for address in addresses}) == 1 + len(others)
    assert {address.kind for address in addresses} == {"vectors"}


def test_a_recformers_key_holds_the_content_of_all_its_files_and_the_precision(tmp_path, make_recformer):
    folder = make_recformer(tmp_path / "teacher")
    (tmp_path / "smap.json").write_text('{"a": 0}')

    def key(**changed):
        named = {"checkpoint": str(folder), "item_ids": str(tmp_path / "smap.json"), "precision": "float32"}
        settings = recformer.Settings(**(named | changed))
        frozen, scoring = digests(settings.files("office", "teachers.rec")), settings.scoring(lambda: False)
        return label_key(frozen=frozen, scoring=scoring, text_key=None)

    keys = [key(), key(precision="bfloat16"), key(item_ids=None)]
    assert key(precision="auto") == keys[0]
    (tmp_path / "smap.json").write_text('{"b": 0}')
    keys.append(key())
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text((folder / name).read_text() + " ")
        keys.append(key())
    assert len(set(keys)) == len(keys)


def test_a_newer_format_of_the_labels_is_another_key(monkeypatch):
    key = label_key()
    monkeypatch.setattr("ckd.stages.precompute.address.LABEL_FORMAT", formats.LABEL_FORMAT + 1)
    assert label_key() != key


def test_text_vectors_are_named_by_corpus_encoder_files_and_settings(tmp_path):
    digests = {"config.json": "a", "tokenizer.json": "b", "model.safetensors": "c"}
    key = text_address("corpus", TextSettings(), Encoder(tmp_path, digests)).key
    assert text_address("corpus", TextSettings(encoder="moved"), Encoder(tmp_path / "moved", digests)).key == key
    others = [
        text_address("other", TextSettings(), Encoder(tmp_path, digests)),
        text_address("corpus", TextSettings(max_tokens=9), Encoder(tmp_path, digests)),
        text_address("corpus", TextSettings(fields=("brand", "title")), Encoder(tmp_path, digests)),
        *(text_address("corpus", TextSettings(), Encoder(tmp_path, digests | {name: "x"})) for name in digests),
    ]
    assert len({key, *(address.key for address in others)}) == 1 + len(others)


def test_a_trained_teacher_is_named_by_what_it_was_trained_on_and_how():
    settings = PretrainSettings()
    addresses = [
        pretrain_address("unisrec", settings, ["a", "b"]),
        pretrain_address("unisrec", settings, ["b", "a"]),
        pretrain_address("unisrec", PretrainSettings(seed=1), ["a", "b"]),
        pretrain_address("other", settings, ["a", "b"]),
        pretrain_address("unisrec", PretrainSettings(network=NetworkSettings(hidden=64)), ["a", "b"]),
        pretrain_address("unisrec", PretrainSettings(learning_rate=1e-4), ["a", "b"]),
    ]
    start = {"config.json": "c", "model.safetensors": "w"}
    adapted = [
        adapt_address("unisrec", AdaptSettings(), start, "corpus", "text"),
        adapt_address("unisrec", AdaptSettings(), start | {"config.json": "x"}, "corpus", "text"),
        adapt_address("unisrec", AdaptSettings(), start, "other", "text"),
        adapt_address("unisrec", AdaptSettings(), start, "corpus", None),
        adapt_address("unisrec", AdaptSettings(seed=1), start, "corpus", "text"),
        adapt_address("unisrec", AdaptSettings(mode="transductive"), start, "corpus", "text"),
    ]
    assert len({address.key for address in addresses + adapted}) == len(addresses + adapted)


FROZEN = {"config.json": "c", "model.safetensors": "w"}


@pytest.mark.parametrize("folds", [0, 2, 5])
@pytest.mark.parametrize(
    ("kind", "settings", "inputs", "key"),
    [
        (
            "unisrec",
            AdaptSettings,
            (FROZEN, "corpus", "text"),
            "0d59f09997f42c2ed5edbaec614af0eb18166a866d7c361c1271b367b3028225",
        ),
        (
            "recformer",
            recformer.AdaptSettings,
            (FROZEN, "corpus", None),
            "3a63833c8026d5d2abe7d90f779844296b0deaf72f53f83b36276ad3e0525f42",
        ),
        (
            "sasrec",
            sasrec.TrainSettings,
            ({}, "corpus", None),
            "b79ab539510c455b316e02e57e7ad4dd512c3e0c16d7ae4050c7802600f94586",
        ),
    ],
)
def test_the_teacher_of_all_users_has_the_key_of_its_format_whatever_the_folds(kind, settings, inputs, key, folds):
    assert adapt_address(kind, settings(folds=folds), *inputs).key == key


def test_the_teacher_of_a_fold_is_named_by_its_number_of_how_many_and_the_rule():
    inputs = ("unisrec", AdaptSettings(folds=3), FROZEN, "corpus", "text")
    folds = [*all_folds(2), *all_folds(3)]
    addresses = [adapt_address(*inputs, fold) for fold in (None, *folds)]
    assert len({address.key for address in addresses}) == 1 + len(folds)
    assert addresses[2].inputs["fold"] == {
        "number": 2,
        "of": 2,
        "rule": "1 + first 16 hex digits of sha256(user_id) mod folds",
    }
    again = adapt_address(inputs[0], AdaptSettings(folds=2), *inputs[2:], Fold(2, 2))
    assert again.key == addresses[2].key, "it is no other for what the setting says now"


def test_labels_without_folds_have_the_key_that_they_had_before_there_were_any():
    before = "ac9453bf262bc1f98174c4ed29f8e5d9cf67260cd92c90b3ad702f45ce87c0b8"
    then = {"scoring": {}, "settings": LabelSettings(precision="float16")}
    assert label_key(**then) == label_key(**then, folds=()) == before


def test_labels_out_of_fold_are_named_by_the_weights_of_all_their_teachers_in_order():
    one, other = FROZEN | {"model.safetensors": "1"}, FROZEN | {"model.safetensors": "2"}
    keys = {label_key(folds=folds) for folds in [(), (one, other), (other, one), (one, one), (one, other, one)]}
    assert len(keys) == 5
    assert label_key(folds=(one, other), frozen=one) not in keys
