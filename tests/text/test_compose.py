"""One text per item, as an encoder reads it."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ckd.stages.text.compose import cleaned, item_texts
from ckd.stages.text.settings import TextSettings
from ckd.storage.corpus import Corpus

AUTHORS = Path(__file__).parents[1] / "fixtures" / "unisrec"


def corpus(**columns):
    """A corpus of items alone, with the fields that are given."""
    n = len(next(iter(columns.values())))
    nothing = [None] * n
    fields = {name: columns.get(name, nothing) for name in ("title", "brand", "categories", "description")}
    items = pa.table({"item_id": list(map(str, range(n))), **{k: pa.array(v, pa.string()) for k, v in fields.items()}})
    none = np.zeros(1, np.int64)
    return Corpus("key", items, pa.array([], pa.string()), none, none[:0].astype(np.int32))


def first_records():
    """Metadata by item: the first record counts, as for the authors."""
    found = {}
    with gzip.open(AUTHORS / "raw" / "meta_Tiny_Raw.json.gz", "rt") as lines:
        for line in lines:
            record = json.loads(line)
            found.setdefault(record["asin"], record)
    return found


def as_text(value):
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def test_texts_are_those_of_the_authors_preprocessing():
    """Entities, quotes, line breaks, tabs, dots at the end, missing and empty fields, over 2,000 characters."""
    records = first_records()
    lines = (AUTHORS / "data" / "tiny.text").read_text(encoding="utf-8").split("\n")[1:-1]
    assert len(lines) > 30
    compared = 0
    for line in lines:
        asin, text = line.split("\t", 1)
        fields = {"title": "title", "categories": "category", "brand": "brand"}
        values = {ours: as_text(records[asin][theirs]) for ours, theirs in fields.items() if theirs in records[asin]}
        if not all(values.values()):
            continue  # an empty field is a missing one in a corpus, where the authors make a full stop of it
        (found,) = item_texts(
            corpus(**{name: [value] for name, value in values.items()}), TextSettings(style="unisrec")
        )
        assert found == text
        compared += 1
    assert compared > 25


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", "."), (".", ".."), ("...", ".."), ("a", "a."), ("a..", "a."), ("a&amp;b", "a&b."), ('a"b\nc', "abc.")],
)
def test_a_field_is_cleaned_as_the_authors_clean_it(value, expected):
    assert cleaned(value) == expected


def test_a_field_of_two_thousand_characters_is_left_out():
    assert cleaned("x" * 1998) == "x" * 1998 + "."
    assert cleaned("x" * 1999) == ""


def test_words_are_left_out_item_by_item_and_the_same_ones_every_time():
    text = " ".join(f"word{n}" for n in range(2_000))
    settings = TextSettings(fields=("title",), drop_words=0.15)
    items = corpus(title=[text, "one two three", None])
    first, second, empty = item_texts(items, settings)
    assert [first, second, empty] == item_texts(items, settings)
    left = first.split(" ")
    assert 0.80 < len(left) / 2_000 < 0.90
    assert left == [word for word in text.split(" ") if word in set(left)], "the order stays"
    assert set(second.split(" ")) <= {"one", "two", "three"} and empty == ""


def test_without_dropping_the_text_is_whole():
    assert item_texts(corpus(title=["red pen", None]), TextSettings(fields=("title",))) == ["red pen", ""]
