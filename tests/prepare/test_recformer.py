"""Data sets in the layout of Recformer's authors: what becomes of their files, and what is refused."""

import gzip
import json
from collections import defaultdict
from pathlib import Path

import pytest

from ckd.stages.prepare.prepare import prepare_domain
from ckd.stages.prepare.settings import DomainSettings
from ckd.storage.corpus import read_corpus
from ckd.storage.errors import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "recformer"
DATA, RAW = FIXTURES / "data", FIXTURES / "raw"
NAMES = ("train", "val", "test", "smap", "umap", "meta_data")


def prepared(store, path, **values):
    return prepare_domain(store, "domains.shop", DomainSettings(path=path, format="recformer", **values))


def histories(artifact):
    """Map each user to the raw item ids, oldest first."""
    corpus = read_corpus(artifact)
    ids = corpus.items["item_id"].to_pylist()
    return {user.as_py(): [ids[code] for code in corpus.sequence_of(row)] for row, user in enumerate(corpus.user_ids)}


def content(folder, name):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def edit(folder, name, **changes):
    """Set keys of a file; None removes one."""
    value = content(folder, name) | changes
    kept = {key: entry for key, entry in value.items() if entry is not None}
    (folder / f"{name}.json").write_text(json.dumps(kept))


@pytest.fixture
def refusal(store):
    """A function that prepares a folder, expects a refusal, and returns its text without the folder's path."""

    def prepare(path, **values):
        with pytest.raises(UserError) as caught:
            prepared(store, path, **values)
        assert not store.root.exists(), "a refusal leaves no trace in the store"
        text = str(caught.value)
        assert "\n" not in text
        return text.replace(f"{path}/", "").replace(str(path), "FOLDER")

    return prepare


def test_sequences_are_the_three_files_joined(store):
    items = {number: asin for asin, number in content(DATA, "smap").items()}
    parts = [content(DATA, split) for split in ("train", "val", "test")]
    artifact = prepared(store, DATA)
    expected = {
        user: [items[item] for part in parts for item in part[str(number)]]
        for user, number in content(DATA, "umap").items()
    }
    # Of the authors' items only those in a sequence of three or more stay.
    assert len(expected) == 11
    assert histories(artifact) == expected
    assert artifact.manifest["inputs"]["k_core"] == 1


def test_sequences_are_those_of_the_reviews_that_the_files_were_made_from(store):
    """An independent way: reviews of items with metadata, of the users that the authors drew, by time."""
    with gzip.open(RAW / "meta_Tiny.json.gz", "rt", encoding="utf-8") as stream:
        known = {json.loads(line)["asin"] for line in stream}
    with gzip.open(RAW / "Tiny_5.json.gz", "rt", encoding="utf-8") as stream:
        reviews = sorted(map(json.loads, stream), key=lambda review: review["unixReviewTime"])
    drawn = content(DATA, "umap")
    expected = defaultdict(list)
    for review in reviews:
        if review["asin"] in known and review["reviewerID"] in drawn:
            expected[review["reviewerID"]].append(review["asin"])
    assert histories(prepared(store, DATA)) == expected


def test_texts_are_the_metadata_of_the_items_in_use(store):
    metadata = content(DATA, "meta_data")
    items = read_corpus(prepared(store, DATA)).items.to_pylist()
    assert len(items) == len(content(DATA, "smap")) < len(metadata)
    for item in items:
        record = metadata[item["item_id"]]
        for ours, theirs in {"title": "title", "brand": "brand", "categories": "category"}.items():
            assert item[ours] == (record[theirs] if record[theirs].strip() else None)
        assert item["description"] is None


def test_a_category_that_is_a_list_is_joined_by_spaces(store, authors):
    path = authors("recformer")
    edit(path, "meta_data", B08ZFUJ6SQ={"title": "A", "category": ["Tools, small", "Saws"], "price": 3})
    (item,) = [item for item in read_corpus(prepared(store, path)).items.to_pylist() if item["item_id"] == "B08ZFUJ6SQ"]
    assert (item["title"], item["brand"], item["categories"]) == ("A", None, "Tools, small Saws")


def test_users_of_whom_nothing_is_held_out_are_rejected_and_counted(store, authors, refusal):
    path = authors("recformer")
    edit(path, "val", **{"0": None})
    edit(path, "test", **{"3": []})
    assert refusal(path) == (
        "train.json: 14 of 89 rows (15.7%) are unusable, 5.0% are allowed: 14 of users without a validation or a test "
        "item (first: user 'ALVU8YIJGA27YU'); correct the rows, or raise domains.shop.max_rejected"
    )
    artifact = prepared(store, path, max_rejected=0.5)
    assert artifact.facts["rejected"]["interactions"]["no_held_out_item"] == 14
    assert set(content(path, "umap")) - set(histories(artifact)) == {"ALVU8YIJGA27YU", "A7F7H3BRPCYXWJ"}


def test_users_of_whom_only_the_held_out_items_are_there_are_too_short(store, authors):
    path = authors("recformer")
    edit(path, "train", **{"0": []})
    artifact = prepared(store, path)
    assert artifact.facts["dropped"]["too_short"]["users"] == 1
    assert "ALVU8YIJGA27YU" not in histories(artifact)


# --- refused


@pytest.mark.parametrize("name", NAMES)
def test_a_torn_file(authors, refusal, name):
    path = authors("recformer")
    file = path / f"{name}.json"
    file.write_bytes(file.read_bytes()[:-3])
    assert refusal(path).startswith(f"{name}.json is not JSON in UTF-8 (")
    assert refusal(path).endswith("); is the file whole?")


@pytest.mark.parametrize("name", NAMES)
def test_files_of_another_form(authors, refusal, name):
    path = authors("recformer")
    (path / f"{name}.json").write_text("[1]")
    assert refusal(path).startswith(f"{name}.json holds [1] where a JSON object is expected;")
    (path / f"{name}.json").write_text('{"a": 1, "b": 2, "a": 3}')
    assert refusal(path) == f"{name}.json has the key 'a' more than once in one object; keep one of them"
    (path / f"{name}.json").write_bytes(b'{"caf\xe9": 1}')
    assert refusal(path).startswith(f"{name}.json is not JSON in UTF-8 (")
    (path / f"{name}.json").write_text('{"a":' * 100_000)
    assert refusal(path).startswith(f"{name}.json is not JSON in UTF-8 (")


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("smap", {"X": 5}, "smap.json: 'B08ZFUJ6SQ' and 'X' have the number 5;"),
        ("smap", {"X": "5"}, "smap.json: 'X' has the number \"5\"; a name and a whole number are needed"),
        ("smap", {"X": True}, "smap.json: 'X' has the number true;"),
        ("smap", {"B08ZFUJ6SQ": None}, "train.json: user 0 has the item 5, which is not in smap.json;"),
        ("smap", {"X": 99}, "meta_data.json has no record of item 'X' of smap.json;"),
        ("umap", {" ": 99}, "umap.json: ' ' has the number 99; a name and"),
        ("umap", {"ALVU8YIJGA27YU": None}, "train.json: user '0' is not in umap.json;"),
        ("train", {"77": [1]}, "train.json: user '77' is not in umap.json;"),
        ("train", {"0": 5}, "train.json: user 0 has 5 where a list of items is expected;"),
        ("train", {"0": [5, 36]}, "train.json: user 0 has the item 36, which is not in smap.json;"),
        ("train", {"0": [True]}, "train.json: user 0 has the item true, which is not in smap.json;"),
        ("train", {"0": [5.0]}, "train.json: user 0 has the item 5.0, which is not in smap.json;"),
        (
            "train",
            {"0": [[list(range(99))]]},
            "train.json: user 0 has the item [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,",
        ),
        ("val", {"0": [5, 6]}, "val.json: user 0 has 2 items where one is held out;"),
        ("test", {"0": [5, 6]}, "test.json: user 0 has 2 items where one is held out;"),
        ("meta_data", {"B08ZFUJ6SQ": None}, "meta_data.json has no record of item 'B08ZFUJ6SQ' of smap.json;"),
        (
            "meta_data",
            {"B08ZFUJ6SQ": "x"},
            "meta_data.json has \"x\" for the record of item 'B08ZFUJ6SQ' of smap.json;",
        ),
        (
            "meta_data",
            {"B08ZFUJ6SQ": {"title": {"en": "x"}}},
            "meta_data.json: 'title' of item 'B08ZFUJ6SQ' is {\"en\": \"x\"}; a string or a list of strings is",
        ),
        ("meta_data", {"B08ZFUJ6SQ": {"brand": "\ud800"}}, "meta_data.json: '\\ud800' holds half a character; correct"),
    ],
)
def test_files_that_contradict_each_other_or_themselves(authors, refusal, name, changes, text):
    path = authors("recformer")
    edit(path, name, **changes)
    assert refusal(path).startswith(text)


def test_no_rows_at_all(authors, refusal):
    path = authors("recformer")
    for split in ("train", "val", "test"):
        (path / f"{split}.json").write_text("{}")
    assert "nothing is left of the 0 usable interactions" in refusal(path)
