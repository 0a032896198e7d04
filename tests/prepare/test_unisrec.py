"""Data sets in the layout of UniSRec's authors: whole sequences from cut histories, and what is refused."""

import csv
import gzip
import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.prepare.prepare import prepare_domain
from ckd.stages.prepare.readers import unisrec
from ckd.stages.prepare.settings import DomainSettings
from ckd.storage.corpus import read_corpus
from ckd.storage.errors import UserError
from ckd.storage.parquet import read_table

FIXTURES = Path(__file__).parents[1] / "fixtures" / "unisrec"
DATA, RAW = FIXTURES / "data", FIXTURES / "raw"
HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token\n"


def prepared(store, path, **values):
    return prepare_domain(store, "domains.shop", DomainSettings(path=path, format="unisrec", **values))


def histories(artifact):
    """Map each user to the raw item ids, oldest first."""
    corpus = read_corpus(artifact)
    ids = corpus.items["item_id"].to_pylist()
    return {user.as_py(): [ids[code] for code in corpus.sequence_of(row)] for row, user in enumerate(corpus.user_ids)}


def titles(artifact):
    items = read_corpus(artifact).items
    return dict(zip(items["item_id"].to_pylist(), items["title"].to_pylist(), strict=True))


def records(path):
    return [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def index(name):
    return {number: raw for raw, number in records(DATA / f"tiny.{name}2index")}


def edit(path, change):
    """Change the lines of a file."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    changed = change(lines)
    path.write_text("".join(f"{line}\n" for line in (lines if changed is None else changed)), encoding="utf-8")


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


# --- what the authors wrote


def test_every_row_of_the_authors_is_a_position_of_the_corpus(store):
    users, items = index("user"), index("item")
    sequences = histories(prepared(store, DATA))
    assert max(map(len, sequences.values())) > 52, "some history was cut"
    seen = defaultdict(list)
    for split in ("train", "valid", "test"):
        for user, history, target in records(DATA / f"tiny.{split}.inter")[1:]:
            sequence = sequences[users[user]]
            # Training histories come longest first.
            position = {"train": len(sequence) - 3 - len(seen[user]), "valid": -2, "test": -1}[split]
            position %= len(sequence)
            assert sequence[position] == items[target]
            assert sequence[max(position - 50, 0) : position] == [items[item] for item in history.split()]
            seen[user].append(split)
    lengths = {users[user]: len(splits) + 1 for user, splits in seen.items()}
    assert lengths == {user: len(sequence) for user, sequence in sequences.items()}


def test_sequences_are_those_of_the_ratings_that_the_files_were_made_from(store):
    """An independent way: distinct ratings of items with metadata, repeated 5-core, each user's by time."""
    with gzip.open(RAW / "meta_Tiny_Raw.json.gz", "rt", encoding="utf-8") as stream:
        known = {json.loads(line)["asin"] for line in stream}
    with (RAW / "Tiny_Raw.csv").open(encoding="utf-8") as stream:
        ratings = {(user, item, int(time)) for item, user, _, time in csv.reader(stream) if item in known}
    while True:
        of_user, of_item = (Counter(rating[place] for rating in ratings) for place in (0, 1))
        kept = {rating for rating in ratings if of_user[rating[0]] >= 5 and of_item[rating[1]] >= 5}
        if kept == ratings:
            break
        ratings = kept
    expected = defaultdict(list)
    for user, item, _ in sorted(ratings, key=lambda rating: rating[2]):
        expected[user].append(item)
    assert histories(prepared(store, DATA)) == expected


def test_titles_are_the_whole_texts_tabs_and_all(store):
    found = titles(prepared(store, DATA))
    assert len(found) == 36
    assert "\ta tab and" in found["B06MI0YHZ0"], "a text may hold tabs"
    assert all(text.endswith(" ") for text in found.values())
    rows = (DATA / "tiny.text").read_bytes().split(b"\n")[1:-1]
    assert found == {item.decode(): text.decode() for item, _, text in (row.partition(b"\t") for row in rows)}


def test_the_files_were_filtered_by_their_authors_and_nothing_is_dropped(store, authors):
    path = authors("unisrec")
    artifact = prepared(store, path)
    assert artifact.manifest["inputs"]["k_core"] == 1
    assert artifact.facts["before"] == artifact.facts["after"]
    assert prepared(store, path, k_core=9).facts["after"]["users"] < artifact.facts["after"]["users"]


def test_times_are_the_order(store):
    times = read_table(prepared(store, DATA).path / "sequences.parquet")["timestamps"].to_pylist()
    assert all(row == list(range(len(row))) for row in times)


def test_without_user_index_users_are_their_indices(store, authors):
    path = authors("unisrec")
    named = histories(prepared(store, path))
    (path / "tiny.user2index").unlink()
    numbered = histories(prepared(store, path))
    assert {index("user")[str(user)]: sequence for user, sequence in numbered.items()} == named
    assert all(type(user) is int for user in numbered)


def test_without_item_index_items_are_their_indices(store, authors):
    path = authors("unisrec")
    named, texts = histories(prepared(store, path)), titles(prepared(store, path))
    numbers = {raw: number for number, raw in index("item").items()}
    (path / "tiny.item2index").unlink()
    edit(path / "tiny.text", lambda lines: lines[:1] + [f"{numbers[x[:10]]}{x[10:]}" for x in lines[1:]])
    artifact = prepared(store, path)
    assert histories(artifact) == {user: [int(numbers[item]) for item in sequence] for user, sequence in named.items()}
    assert titles(artifact) == {int(numbers[item]): text for item, text in texts.items()}


def test_a_text_of_an_item_without_index_is_left_out(store, authors):
    path = authors("unisrec")
    edit(path / "tiny.text", lambda lines: [*lines, "B0UNKNOWN0\tnobody has it. "])
    assert "B0UNKNOWN0" not in titles(prepared(store, path))


def test_a_user_of_three_items_has_no_training_row(store, authors):
    path = authors("unisrec")
    edit(path / "tiny.user2index", lambda lines: [*lines, "THREE\t900", "TWO\t901"])
    edit(path / "tiny.valid.inter", lambda lines: [*lines, "900\t7\t8", "901\t\t3"])
    edit(path / "tiny.test.inter", lambda lines: [*lines, "900\t7 8\t7", "901\t3\t4"])
    artifact = prepared(store, path)
    assert histories(artifact)["THREE"] == [index("item")[item] for item in "787"]
    assert "TWO" not in histories(artifact)
    assert artifact.facts["dropped"]["too_short"] == {"users": 1, "items": 0, "interactions": 2}


# --- any sequences


def write_pairs(folder, sequences, cut):
    """Write sequences of item indices as the authors do."""
    rows = {"train": [], "valid": [], "test": []}
    for user, sequence in enumerate(sequences):
        for position in range(len(sequence) - 1, 0, -1):
            split = {1: "test", 2: "valid"}.get(len(sequence) - position, "train")
            history = " ".join(map(str, sequence[:position][-cut:]))
            rows[split].append(f"{user}\t{history}\t{sequence[position]}\n")
        if len(sequence) == 2:
            rows["valid"].append(f"{user}\t\t{sequence[0]}\n")
    for split, pairs in rows.items():
        (folder / f"any.{split}.inter").write_text(HEADER + "".join(pairs))
    (folder / "any.text").write_text("item_id:token\ttext:token_seq\n" + "".join(f"{item}\tx\n" for item in range(4)))
    return {name: folder / f"any.{name}" for name in ("train.inter", "valid.inter", "test.inter", "text")}


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=12), max_size=6), st.integers(1, 6))
def test_any_sequences_survive_being_cut_into_pairs(tmp_path_factory, sequences, cut):
    rows = unisrec.read(write_pairs(tmp_path_factory.mktemp("any"), sequences, cut)).interactions.to_pylist()
    found = [[] for _ in sequences]
    for row in rows:
        assert row["timestamp"] == len(found[row["user_id"]])
        found[row["user_id"]].append(row["item_id"])
    assert found == sequences


@given(st.data())
def test_no_row_can_be_missing(tmp_path_factory, data):
    sequences = data.draw(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=8), min_size=1, max_size=3))
    files = write_pairs(tmp_path_factory.mktemp("any"), sequences, 50)
    split = data.draw(
        st.sampled_from(["train", "valid", "test"] if max(map(len, sequences)) > 3 else ["valid", "test"])
    )
    path = files[f"{split}.inter"]
    row = data.draw(st.integers(1, len(path.read_text().splitlines()) - 1))
    edit(path, lambda lines: lines.pop(row) and lines)
    with pytest.raises(UserError, match=r"any\.(train|valid|test)\.inter, line \d+: .* are the files whole"):
        unisrec.read(files)


# --- contradictions


def test_a_history_that_contradicts_the_others(authors, refusal):
    path = authors("unisrec")
    edit(path / "tiny.valid.inter", lambda lines: [*lines[:2], lines[2].replace("30 19", "30 18"), *lines[3:]])
    assert refusal(path) == (
        "tiny.valid.inter, line 3: the history of user 1 does not follow from the user's shorter ones "
        "(item 18 in place 2 where 19 is expected); are the files whole, and of one data set?"
    )


def test_a_cut_history_that_contradicts_the_others(authors, refusal):
    path = authors("unisrec")
    edit(path / "tiny.train.inter", lambda lines: [lines[0], lines[2], lines[1], *lines[3:]])
    assert refusal(path).startswith("tiny.train.inter, line 3: the history of user 0 does not follow from the user's")


def test_a_target_that_contradicts_the_others(authors, refusal):
    path = authors("unisrec")
    edit(path / "tiny.valid.inter", lambda lines: [*lines[:2], lines[2].replace("\t14", "\t15"), *lines[3:]])
    assert refusal(path).startswith(
        "tiny.test.inter, line 3: the history of user 1 does not follow from the user's shorter ones "
        "(item 14 in place 13 where 15 is expected)"
    )


def test_a_row_that_is_there_twice(authors, refusal):
    path = authors("unisrec")
    edit(path / "tiny.train.inter", lambda lines: [*lines, lines[-1]])
    assert "(1 items where 2 are expected)" in refusal(path)
    path = authors("unisrec")
    edit(path / "tiny.test.inter", lambda lines: [*lines, lines[1]])
    assert refusal(path).endswith(": user 0 has a row in line 2 too; keep one")


def test_a_user_without_held_out_rows(authors, refusal):
    path = authors("unisrec")
    edit(path / "tiny.valid.inter", lambda lines: lines[:-1])
    assert "has no validation row; are the files whole" in refusal(path)
    path = authors("unisrec")
    edit(path / "tiny.test.inter", lambda lines: lines[:1])
    assert "tiny.train.inter, line 2: user 0 has no test row; are the files whole" in refusal(path)


def test_indices_that_nothing_names(authors, refusal):
    path = authors("unisrec")
    edit(path / "tiny.item2index", lambda lines: [line for line in lines if not line.endswith("\t20")])
    assert refusal(path).endswith(": '20' is no index of an item; are the files whole, and of one data set?")
    path = authors("unisrec")
    edit(path / "tiny.user2index", lambda lines: lines[1:])
    assert refusal(path).startswith("tiny.train.inter, line 2: '0' is no index of a user;")
    path = authors("unisrec")
    edit(path / "tiny.test.inter", lambda lines: [*lines[:-1], f"{lines[-1]}x"])
    assert "x' is no index of an item" in refusal(path)


def test_items_without_text(authors, refusal):
    path = authors("unisrec")
    edit(path / "tiny.text", lambda lines: lines[:-1])
    assert refusal(path).startswith("tiny.text has no text of item '")
    (path / "tiny.item2index").unlink()
    assert refusal(path) == (
        "tiny.text names item 'B0H5FKE830', but tiny.item2index, which gives its index, is not there; copy it into the "
        "folder"
    )


# --- torn and foreign files


@pytest.mark.parametrize("name", ["train.inter", "valid.inter", "test.inter", "text", "item2index", "user2index"])
def test_a_torn_file(authors, refusal, name):
    path = authors("unisrec")
    file = path / f"tiny.{name}"
    last = file.read_bytes().count(b"\n")
    file.write_bytes(file.read_bytes()[:-1])
    assert refusal(path) == (
        f"tiny.{name}, line {last}: the file ends without a line break; copy it again, or add the break if the line is "
        "whole"
    )
    file.write_bytes(b"")
    assert refusal(path).startswith(f"tiny.{name}")


@pytest.mark.parametrize("name", ["train.inter", "text", "item2index"])
def test_bytes_that_are_not_utf8(authors, refusal, name):
    path = authors("unisrec")
    with (path / f"tiny.{name}").open("ab") as stream:
        stream.write(b"caf\xe9\t1\n")
    assert refusal(path).endswith(": not UTF-8; save the file as UTF-8")


def test_rows_of_another_form(authors, refusal):
    path = authors("unisrec")
    edit(path / "tiny.train.inter", lambda lines: [*lines, "0 1 2"])
    assert "1 fields between tabs where 3 are expected" in refusal(path)
    path = authors("unisrec")
    edit(path / "tiny.train.inter", lambda lines: lines[1:])
    assert refusal(path).startswith(
        "tiny.train.inter: the first line must be 'user_id:token\\titem_id_list:token_seq\\titem_id:token', not '0\\t"
    )
    path = authors("unisrec")
    edit(path / "tiny.text", lambda lines: [*lines, "B0H5FKE830"])
    assert refusal(path).startswith("tiny.text, line 38: no item, tab and text;")
    path = authors("unisrec")
    edit(path / "tiny.text", lambda lines: [*lines, "B0H5FKE830\tagain. "])
    assert refusal(path) == "tiny.text, line 38: item 'B0H5FKE830' had a text before; keep one of the lines"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("B0H5FKE830", "'B0H5FKE830' is no name, tab and index; correct the line"),
        ("X\t01", "'X\\t01' is no name, tab and index; correct the line"),
        ("X\t1\t2", "'X\\t1\\t2' is no name, tab and index; correct the line"),
        (" \t77", "' \\t77' is no name, tab and index; correct the line"),
        ("X\t5", "index 5 was given before; keep one of the lines"),
        ("B0H5FKE830\t77", "'B0H5FKE830' was given before; keep one of the lines"),
    ],
)
def test_lines_of_an_index_that_are_none(authors, refusal, line, reason):
    path = authors("unisrec")
    edit(path / "tiny.item2index", lambda lines: [*lines, line])
    assert refusal(path) == f"tiny.item2index, line 37: {reason}"


def test_lines_that_end_as_windows_ends_them(store, authors):
    path = authors("unisrec")
    expected = histories(prepared(store, path))
    for file in path.glob("tiny.*"):
        if file.suffix != ".feat1CLS":
            file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert histories(prepared(store, path)) == expected


def test_no_rows_at_all(authors, refusal):
    path = authors("unisrec")
    for split in ("train", "valid", "test"):
        (path / f"tiny.{split}.inter").write_text(HEADER)
    assert "nothing is left of the 0 usable interactions" in refusal(path)
