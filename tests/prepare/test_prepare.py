"""Raw files to corpus, end to end through real files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ckd.stages.prepare import prepare as prepare_module
from ckd.stages.prepare.address import corpus_address
from ckd.stages.prepare.prepare import prepare_domain
from ckd.stages.prepare.settings import DomainSettings
from ckd.storage.corpus import read_corpus
from ckd.storage.errors import Busy, UserError
from ckd.storage.lock import exclusive
from ckd.storage.parquet import read_table

SAMPLES = Path(__file__).parents[2] / "samples"
KINDS = ("parquet", "csv", "tsv", "jsonl")


def settings(path, **values):
    return DomainSettings(path=path, **{"k_core": 1, **values})


def histories(artifact):
    """Map each user to the raw item ids, oldest first."""
    corpus = read_corpus(artifact)
    ids = corpus.items["item_id"].to_pylist()
    return {user.as_py(): [ids[code] for code in corpus.sequence_of(row)] for row, user in enumerate(corpus.user_ids)}


def digests(artifact):
    return {name: receipt.sha256 for name, receipt in artifact.files.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_corpus(kind, folder, store):
    artifact = prepare_domain(store, "domains.shop", settings(folder(kind)))
    assert histories(artifact) == {"u1": ["a", "b", "007"], "u2": ["b", "NA", "007", "a"]}
    reference = prepare_domain(store, "domains.shop", settings(folder("parquet")))
    assert digests(artifact) == digests(reference)


def test_tables_have_exactly_the_documented_columns(folder, store):
    artifact = prepare_domain(store, "domains.shop", settings(folder()))
    items = read_table(artifact.path / "items.parquet")
    assert [(field.name, str(field.type)) for field in items.schema] == [
        ("item", "int32"),
        ("item_id", "string"),
        ("title", "string"),
        ("brand", "string"),
        ("categories", "string"),
        ("description", "string"),
        ("popularity", "int32"),
    ]
    sequences = read_table(artifact.path / "sequences.parquet")
    assert [(field.name, str(field.type)) for field in sequences.schema] == [
        ("user_id", "string"),
        ("items", "list<element: int32>"),
        ("timestamps", "list<element: int64>"),
    ]
    assert sequences["timestamps"].to_pylist() == [[5, 10, 20], [10, 10, 20, 30]]


def test_texts_are_kept_as_written_and_blank_ones_are_null(folder, store):
    items = read_table(prepare_domain(store, "domains.shop", settings(folder("csv"))).path / "items.parquet")
    assert items["item_id"].to_pylist() == ["007", "NA", "a", "b"]
    assert items["title"].to_pylist() == ['A 3" "nail"', "Not applicable", "Glue\nstick", "Tape, wide"]
    assert items["brand"].to_pylist() == [None, "Acme", None, "Acme"]


def test_popularity_counts_training_interactions_only(folder, store):
    artifact = prepare_domain(store, "domains.shop", settings(folder()))
    items = read_table(artifact.path / "items.parquet")
    # u1 trains on a; u2 trains on b and NA.
    assert dict(zip(items["item_id"].to_pylist(), items["popularity"].to_pylist(), strict=True)) == {
        "007": 0, "NA": 1, "a": 1, "b": 1,
    }  # fmt: skip


def test_integer_identifiers_stay_integers_and_sort_by_value(folder, store):
    items = {"item_id": [10, 9, 100], "title": ["x", "y", "z"]}
    interactions = {"user_id": [20, 20, 20, 3, 3, 3], "item_id": [9, 10, 100, 100, 9, 10], "timestamp": [1, 2, 3] * 2}
    for kind in ("parquet", "jsonl"):
        artifact = prepare_domain(store, "domains.shop", settings(folder(kind, items, interactions)))
        assert histories(artifact) == {3: [100, 9, 10], 20: [9, 10, 100]}
        assert read_corpus(artifact).items["item_id"].to_pylist() == [9, 10, 100]
        assert read_corpus(artifact).user_ids.to_pylist() == [3, 20]


def test_integers_in_one_file_meet_strings_in_the_other(folder, store, items, interactions):
    items["item_id"] = [1, 2, 3, 4, 5]
    interactions["item_id"] = ["1", "2", "3", "4", "5", "1", "2", "1"]
    artifact = prepare_domain(store, "domains.shop", settings(folder("parquet", items, interactions)))
    assert histories(artifact) == {"u1": ["1", "2", "4"], "u2": ["3", "2", "5", "1"]}


def test_integers_with_gaps_that_became_floats_are_integers(folder, store, interactions):
    interactions["user_id"] = [2.0, 1.0, 2.0, 1.0, 2.0, 1.0, None, 3.0]
    artifact = prepare_domain(
        store, "domains.shop", settings(folder("parquet", interactions=interactions), max_rejected=0.2)
    )
    assert histories(artifact) == {1: ["a", "b", "007"], 2: ["b", "007", "a"]}


def test_lists_of_categories_are_joined_without_blanks(folder, store, items):
    items["categories"] = [["Office", "Tape"], [], ["A", "", None, "B"], None, ["x"]]
    for kind in ("parquet", "jsonl"):
        artifact = prepare_domain(store, "domains.shop", settings(folder(kind, items)))
        assert read_corpus(artifact).items["categories"].to_pylist() == ["A, B", None, None, "Office, Tape"]


def test_nested_lists_of_categories_are_joined(folder, store, items):
    items["categories"] = [[["Office", "Tape"], ["Home"]], [], [[], ["A"]], None, [["x"]]]
    artifact = prepare_domain(store, "domains.shop", settings(folder("jsonl", items)))
    assert read_corpus(artifact).items["categories"].to_pylist() == ["A", None, None, "Office, Tape, Home"]


def test_only_item_id_is_needed_of_items(folder, store, items):
    artifact = prepare_domain(store, "domains.shop", settings(folder("csv", {"item_id": items["item_id"]})))
    assert read_corpus(artifact).items["title"].to_pylist() == [None] * 4


def test_ties_keep_the_order_of_the_file(folder, store):
    names = [f"i{number:03d}" for number in range(200)]
    interactions = {"user_id": ["u"] * 200, "item_id": names[::-1], "timestamp": [7] * 200}
    artifact = prepare_domain(store, "domains.shop", settings(folder("csv", {"item_id": names}, interactions)))
    assert histories(artifact) == {"u": names[::-1]}


def test_a_repeated_interaction_is_kept(folder, store):
    interactions = {"user_id": ["u"] * 4, "item_id": ["a", "a", "b", "a"], "timestamp": [1, 1, 2, 3]}
    artifact = prepare_domain(store, "domains.shop", settings(folder("csv", interactions=interactions)))
    assert histories(artifact) == {"u": ["a", "a", "b", "a"]}


def test_the_order_of_the_items_file_does_not_matter(folder, store, items):
    turned = {name: values[::-1] for name, values in items.items()}
    first = prepare_domain(store, "domains.shop", settings(folder("csv", items)))
    second = prepare_domain(store, "domains.shop", settings(folder("csv", turned)))
    assert first.key != second.key
    assert digests(first) == digests(second)


def test_columns_may_have_other_names(folder, store, items, interactions):
    items = {"asin": items["item_id"], "name": items["title"]}
    interactions["reviewer"] = interactions.pop("user_id")
    interactions["asin"] = interactions.pop("item_id")
    columns = {"item_id": "asin", "title": "name", "user_id": "reviewer"}
    artifact = prepare_domain(store, "domains.shop", settings(folder("csv", items, interactions), columns=columns))
    assert histories(artifact)["u1"] == ["a", "b", "007"]
    assert read_corpus(artifact).items["title"][2].as_py() == "Glue\nstick"


def test_unusable_rows_are_counted_by_reason(folder, store, items, interactions):
    items["item_id"] += ["a", None]
    items["title"] += ["a second a", "nobody"]
    for name in ("brand", "categories", "description"):
        items[name] += [None, None]
    interactions["user_id"] += [None, "u1", "u1", "u1", None]
    interactions["item_id"] += ["a", None, "gone", "a", "gone"]
    interactions["timestamp"] += [1, 1, 1, None, None]
    artifact = prepare_domain(store, "domains.shop", settings(folder("jsonl", items, interactions), max_rejected=0.5))
    assert artifact.facts["rejected"] == {
        "items": {"missing_item_id": 1, "duplicate_item_id": 1},
        "interactions": {
            "missing_user_id": 2,
            "missing_item_id": 1,
            "unknown_item_id": 1,
            "unusable_timestamp": 1,
        },
    }
    assert read_corpus(artifact).items["title"].to_pylist()[2] == "Glue\nstick"


def test_facts_describe_the_domain_before_and_after(folder, store):
    facts = prepare_domain(store, "domains.shop", settings(folder())).facts
    before, after = facts["before"], facts["after"]
    assert (before["users"], before["items"], before["interactions"]) == (3, 5, 8)
    assert (after["users"], after["items"], after["interactions"]) == (2, 4, 7)
    assert (after["mean_length"], after["density"]) == (3.5, 0.875)
    assert after["text"] == {"title": 1.0, "brand": 0.5, "categories": 0.75, "description": 0.25}
    assert facts["dropped"] == {
        "k_core": {"users": 0, "items": 1, "interactions": 0},
        "too_short": {"users": 1, "items": 0, "interactions": 1},
    }
    assert facts["positions"] == {"train": 1, "valid": 2, "test": 2}


def test_the_core_still_holds_after_short_sequences_are_dropped(folder, store):
    # At k = 2 user v (two items) fits, but is too short; without v nothing else carries item z.
    interactions = {
        "user_id": ["u"] * 4 + ["v"] * 2 + ["w"] * 4,
        "item_id": list("xyxzzxyxyx"),
        "timestamp": list(range(10)),
    }
    path = folder("csv", {"item_id": ["x", "y", "z"]}, interactions)
    artifact = prepare_domain(store, "domains.shop", settings(path, k_core=2))
    assert histories(artifact) == {"u": ["x", "y", "x"], "w": ["y", "x", "y", "x"]}
    assert artifact.facts["dropped"]["too_short"] == {"users": 1, "items": 1, "interactions": 3}


def test_a_stored_corpus_is_returned_and_not_made_again(folder, store, monkeypatch):
    path = folder()
    first = prepare_domain(store, "domains.shop", settings(path))
    monkeypatch.setattr(prepare_module, "read_domain", None)
    assert prepare_domain(store, "domains.renamed", settings(path, max_rejected=0.9)).path == first.path
    assert len(store.all("corpus")) == 1


def test_a_corpus_that_another_process_made_meanwhile_is_returned(folder, tmp_path, monkeypatch):
    path, ours = folder(), prepare_module.Store(tmp_path / "store")
    theirs = prepare_domain(ours, "domains.shop", settings(path))
    blind = iter([None])  # the first look misses it, the look under the lock does not
    find = ours.find
    monkeypatch.setattr(ours, "find", lambda address: next(blind, find(address)))
    assert prepare_domain(ours, "domains.shop", settings(path)).manifest == theirs.manifest
    assert [entry.name for entry in (tmp_path / "store" / "corpus").iterdir()] == [theirs.path.name]


def test_a_corpus_that_another_process_writes_is_left_alone(folder, store):
    chosen = settings(folder())
    directory = corpus_address(chosen).directory
    with (
        exclusive(store.root / "locks" / f"{'-'.join(directory.parts)}.lock", "it"),
        pytest.raises(Busy, match="is being written"),
    ):
        prepare_domain(store, "domains.shop", chosen)


def test_the_key_depends_on_content_and_rules_only(folder, items):
    path = folder("csv")
    key = corpus_address(settings(path)).key
    os.utime(path / "items.csv", (1, 1))
    moved = path.rename(path.with_name("elsewhere"))
    assert corpus_address(settings(moved)).key == key
    assert corpus_address(settings(moved, max_rejected=0.5)).key == key
    assert corpus_address(settings(moved, columns={"title": "title"})).key == key
    assert corpus_address(settings(moved, columns={"title": "brand"})).key != key
    assert corpus_address(settings(moved, k_core=2)).key != key
    (moved / "items.csv").rename(moved / "items.tsv")
    assert corpus_address(settings(moved)).key != key, "the same bytes mean something else to another reader"


def test_the_address_needs_no_heavy_import():
    code = "import sys, ckd.stages.prepare.address; print({'pyarrow', 'numpy', 'torch'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"


def test_files_that_change_while_they_are_read_are_refused(folder, store, monkeypatch):
    path = folder("csv")
    build = prepare_module.build_corpus

    def build_while_somebody_writes(*args):
        with (path / "interactions.csv").open("a") as stream:
            stream.write("u1,a,99\n")
        return build(*args)

    monkeypatch.setattr(prepare_module, "build_corpus", build_while_somebody_writes)
    with pytest.raises(UserError, match="the raw files changed while they were read"):
        prepare_domain(store, "domains.shop", settings(path))
    assert not store.root.exists()


@pytest.mark.parametrize(
    ("domain", "users", "items", "interactions"),
    [("scientific", 8_317, 4_344, 58_492), ("office", 4_905, 2_420, 53_258)],
)
def test_real_samples(domain, users, items, interactions, store):
    artifact = prepare_domain(store, domain, DomainSettings(path=SAMPLES / domain))
    corpus = read_corpus(artifact)
    assert (corpus.n_users, corpus.n_items, len(corpus.sequence)) == (users, items, interactions)
    assert artifact.facts["dropped"]["k_core"] == {"users": 0, "items": 0, "interactions": 0}
    assert sum(artifact.facts["positions"].values()) == corpus.n_positions
    assert corpus.items["popularity"].to_numpy().sum() == interactions - 2 * users


def test_the_same_raw_files_give_the_same_bytes(tmp_path):
    chosen = DomainSettings(path=SAMPLES / "office")
    first, second = (prepare_domain(prepare_module.Store(tmp_path / name), "office", chosen) for name in ("one", "two"))
    assert digests(first) == digests(second)
