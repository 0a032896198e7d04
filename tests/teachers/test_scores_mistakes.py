"""Every mistake in lists that were made elsewhere is one clear line that names the file, the row and the mend."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from ckd.stages.teachers.contract import Opening
from ckd.stages.teachers.scores import Settings, open_teacher
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError

GOOD = {"user_id": "ann", "position": 1, "items": ["b", "d"], "scores": [-0.5, -1.5]}


@pytest.fixture(scope="module")
def corpus():
    """Five items; ann has three positions, bob two."""
    items = pa.table({"item": np.arange(5), "item_id": list("abcde")})
    sequence = np.array([0, 1, 2, 3, 1, 2, 0], np.int32)
    return Corpus("key", items, pa.array(["ann", "bob"]), np.array([0, 4, 7]), sequence)


@pytest.fixture
def refusal(corpus, tmp_path):
    """A function that opens a teacher, expects a refusal, and returns its text without the folder's path."""

    def refused(path, **values):
        beside = {
            key: str(tmp_path / values.pop(key)) for key in ("positions", "item_ids", "confidence") if key in values
        }
        settings = Settings(**{"path": str(path), "scores": "logprob", **beside, **values})
        with pytest.raises(UserError) as caught:
            files = settings.files("d", "teachers.llm")
            open_teacher(Opening(settings, files, corpus, None, torch.device("cpu")))
        text = str(caught.value)
        assert "\n" not in text
        return text.replace(f"{tmp_path}/", "")

    return refused


@pytest.fixture
def jsonl(tmp_path, refusal):
    """A function that writes a good row and one with changes (None leaves a key out), and returns the refusal."""

    def refused(values=None, **changes):
        row = {key: value for key, value in {**GOOD, "user_id": "bob", **changes}.items() if value is not None}
        path = tmp_path / "lists.jsonl"
        path.write_text(f"{json.dumps(GOOD)}\n{json.dumps(row)}\n")
        return refusal(path, **(values or {}))

    return refused


@pytest.fixture
def table(tmp_path, refusal):
    """A function that writes text to a file and returns the refusal."""

    def refused(text, name="lists.csv", **values):
        (tmp_path / name).write_text(text)
        return refusal(tmp_path / name, **values)

    return refused


# --- whose list it is


def test_a_user_that_the_domain_has_not(jsonl):
    assert jsonl(user_id="eve") == (
        "lists.jsonl, row 2 (user 'eve', position 1): the domain has no such user; leave the row out, or keep the user "
        "in the domain"
    )


def test_no_user_in_a_row(jsonl):
    assert jsonl(user_id=None).startswith("lists.jsonl, row 2 (user None, position 1): the user is missing; ")


@pytest.mark.parametrize("position", [-1, 0, 3])
def test_a_position_out_of_range(jsonl, position):
    assert jsonl(position=position) == (
        f"lists.jsonl, row 2 (user 'bob', position {position}): the positions of this user are 1 to 2: the number of "
        "items in the history, oldest first"
    )


@pytest.mark.parametrize(("position", "shown"), [(1.5, None), (None, "None"), ("one", None)])
def test_a_position_that_is_no_whole_number(tmp_path, refusal, position, shown):
    path = tmp_path / "lists.jsonl"
    path.write_text(json.dumps({**GOOD, "position": position}) + "\n")
    text = refusal(path)
    assert text.startswith("lists.jsonl")
    assert "position" in text
    assert (shown or "") in text


def test_a_position_that_is_no_whole_number_in_a_text_file(table):
    text = table("user_id,position,item_id,score\nann,1,b,-1\nann,two,b,-1\n")
    assert text == "lists.csv, row 2: position is 'two', not a whole number"


def test_two_lists_of_one_position(jsonl):
    assert jsonl(user_id="ann", items=["c", "e"]) == (
        "lists.jsonl, row 2 (user 'ann', position 1): row 1 has a list of this user and position already; keep one of "
        "them"
    )


# --- its items


def test_an_item_twice_in_a_list(jsonl):
    assert jsonl(items=["c", "c"]) == (
        "lists.jsonl, row 2 (user 'bob', position 1): item 'c' is listed twice; keep its best place"
    )


def test_an_item_twice_in_a_list_of_one_item_a_row(table):
    text = table("user_id,position,item_id,score\nann,1,b,-1\nbob,1,b,-1\nann,1,b,-2\n")
    assert text.startswith("lists.csv, row 3 (user 'ann', position 1): item 'b' is listed twice")


def test_an_item_that_the_domain_has_not(jsonl):
    assert jsonl(items=["c", "z"]) == (
        "lists.jsonl, row 2 (user 'bob', position 1): the domain has no item 'z'; leave it out of the list, or keep "
        "the item in the domain"
    )


def test_an_item_that_is_missing(jsonl):
    assert "row 2 (user 'bob', position 1): an item is missing; " in jsonl(items=["c", None])


@pytest.mark.parametrize("changes", [{"items": [], "scores": []}, {"items": None, "scores": None}])
def test_an_empty_list(jsonl, changes):
    assert jsonl(**changes).startswith("lists.jsonl, row 2 (user 'bob', position 1): its list is empty; ")


def test_ranks_with_a_gap(table):
    text = table("user_id,position,item_id,rank\nann,1,b,1\nann,1,c,3\n", scores="none")
    assert text == (
        "lists.csv, row 2: rank 3 where rank 2 of that user and position is due; the ranks of a list are 1, 2, 3, ... "
        "without gaps"
    )


# --- its scores


def test_scores_that_rise(jsonl):
    assert jsonl(scores=[-1.5, -0.5]) == (
        "lists.jsonl, row 2 (user 'bob', position 1): score -0.5 after -1.5: a list must be best first, its scores "
        "must not rise"
    )


def test_scores_that_rise_along_the_ranks(table):
    text = table("user_id,position,item_id,rank,score\nann,1,b,1,-2\nann,1,c,2,-1\n")
    assert text.startswith("lists.csv, row 2 (user 'ann', position 1): score -1 after -2: ")


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf"), None])
def test_a_score_that_is_no_finite_number(tmp_path, refusal, score):
    table = pa.table({"user_id": ["ann"], "position": [1], "items": [["b", "c"]], "scores": [[-1.0, score]]})
    pq.write_table(table, tmp_path / "lists.parquet")
    shown = "nan" if score is None else score
    assert refusal(tmp_path / "lists.parquet", scores="logit") == (
        f"lists.parquet, row 1 (user 'ann', position 1): the score {shown} is no finite number"
    )


def test_a_score_that_is_no_number(table):
    assert table("user_id,position,item_id,score\nann,1,b,-1\nann,1,c,low\n") == (
        "lists.csv, row 2: score is 'low', not a number"
    )


def test_scores_that_are_no_numbers_at_all(jsonl, tmp_path, refusal):
    path = tmp_path / "lists.jsonl"
    path.write_text(json.dumps({**GOOD, "scores": [True, False]}) + "\n" + json.dumps({**GOOD, "scores": [[1], [2]]}))
    assert refusal(path).startswith("lists.jsonl")


def test_a_log_probability_above_zero(jsonl):
    assert jsonl(scores=[0.5, -1.5]) == (
        "lists.jsonl, row 2 (user 'bob', position 1): the log-probability 0.5 is above 0; raw scores are scores: logit"
    )


def test_log_probabilities_of_more_than_one(jsonl):
    assert jsonl(scores=[-0.1, -0.2]) == (
        "lists.jsonl, row 2 (user 'bob', position 1): its probabilities sum to 1.724, more than 1; raw scores are "
        "scores: logit"
    )


def test_rounding_is_no_mistake(corpus, tmp_path):
    path = tmp_path / "lists.jsonl"
    path.write_text(json.dumps({**GOOD, "scores": [0.004, -8.0]}) + "\n")
    open_teacher(Opening(Settings(path=str(path), scores="logprob"), {"path": path}, corpus, None, torch.device("cpu")))


def test_the_whole_catalogue_with_less_than_one(jsonl):
    text = jsonl(items=list("abcde"), scores=[-2, -3, -4, -5, -6])
    assert "sum to 0.2127, less than 1 though every item is listed" in text


def test_more_items_than_scores(jsonl):
    assert jsonl(items=["b", "c", "d"]) == "lists.jsonl, row 2: 3 items and 2 scores; give each item its score"


def test_no_scores_where_they_count(table):
    assert table("user_id,position,item_id,rank\nann,1,b,1\n") == (
        "lists.csv has no column 'score', only user_id, position, item_id, rank; add it, or set scores: none, if only "
        "the order is to count"
    )


def test_no_order_in_one_item_a_row(table):
    text = table("user_id,position,item_id,score\nann,1,b,-1\n", scores="none")
    assert text == "lists.csv has no column 'rank', only user_id, position, item_id, score; add it"


# --- the file


def test_no_file(refusal, tmp_path):
    assert refusal(tmp_path / "gone.csv").startswith("teachers.llm.path: gone.csv does not exist; ")


def test_neither_form_and_both(table):
    expected = "a table needs user_id, position and either item_id with rank or score"
    assert expected in table("user_id,position\nann,1\n")
    assert expected in table("user_id,position,item_id,items\nann,1,b,b\n")


def test_lists_in_a_text_file(table):
    assert "column 'items' has type" in table("user_id,position,items,scores\nann,1,b c,-1 -2\n")


def test_an_unknown_ending(table):
    assert table("x", "lists.xlsx") == "lists.xlsx: the name must end in one of .parquet, .csv, .tsv, .jsonl"


def test_torn_files(tmp_path, table, refusal):
    assert table(json.dumps(GOOD)[:-7], "lists.jsonl").startswith("lists.jsonl, row 1: not a JSON object")
    assert table("user_id,position,item_id,score\nann,1,b,-1\nann,1\n").startswith("lists.csv, row 2: 2 fields where")
    pq.write_table(pa.Table.from_pylist([GOOD]), tmp_path / "lists.parquet")
    data = (tmp_path / "lists.parquet").read_bytes()
    (tmp_path / "lists.parquet").write_bytes(data[:-20])
    assert refusal(tmp_path / "lists.parquet").startswith("lists.parquet cannot be read as Parquet")


def test_an_empty_file(table):
    assert table("", "lists.jsonl").startswith("lists.jsonl cannot be read as JSON lines (it is empty")
    assert table("", "lists.csv").startswith("lists.csv is empty")


# --- the files of DLLM2Rec


@pytest.fixture
def ranking(tmp_path, refusal):
    """A function that writes good files of two rows, but for those that it is given, and returns the refusal."""
    good = {
        "rank.txt": "1 2\n3 4\n",
        "rows.csv": "user_id,position\nann,1\nbob,2\n",
        "items.json": '["a", "b", "c", "d", "e"]',
        "distance.txt": "0.5 0.7\n0.1 0.1\n",
    }

    def refused(**changed):
        for name, text in good.items():
            (tmp_path / name).write_text(changed.get(name.partition(".")[0], text))
        beside = {"positions": "rows.csv", "item_ids": "items.json", "confidence": "distance.txt"}
        return refusal(tmp_path / "rank.txt", format="dllm2rec", scores="logit", **beside)

    return refused


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"rank": "1 2\n3\n"}, "rank.txt, row 2: 1 numbers where row 1 has 2; is the file whole?"),
        ({"rank": "1 2\n3 x4\n"}, "rank.txt, row 2: 'x4' is not a number"),
        ({"rank": "1 2\n3 4"}, "rank.txt does not end with a line end, so its last number may be cut; "),
        ({"rank": " \n"}, "rank.txt is empty; "),
        ({"rank": "1 2\n3 1.5\n"}, "rank.txt, row 2: 1.5 is no item code; codes are whole numbers from 0"),
        ({"rank": "1 2\n-1 1\n"}, "rank.txt, row 2: -1 is no item code; "),
        ({"rank": "1 2\nnan 1\n"}, "rank.txt, row 2: nan is no item code; "),
        ({"rank": "1 2\n3 9\n"}, "rank.txt, row 2: items.json has no item of code 9; add it"),
        ({"rank": "1 2\n3 3\n"}, "rank.txt, row 2 (user 'bob', position 2): item 'd' is listed twice; "),
        ({"rank": "1 2\n"}, "rank.txt has 1 rows and rows.csv has 2; "),
        ({"rows": "user_id,position\nann,1\nann,9\n"}, "rank.txt, row 2 (user 'ann', position 9): the positions of "),
        ({"distance": "0.5 0.7\n"}, "distance.txt is 1 x 2 numbers and rank.txt is 2 x 2; "),
        ({"distance": "0.5 0.7\n2 1\n"}, "distance.txt, row 2: 1 in column 2; distances must be finite and must not "),
        ({"distance": "0.5 nan\n1 2\n"}, "distance.txt, row 1: nan in column 2; distances must be finite"),
        ({"items": "[1, "}, "items.json cannot be read ("),
        ({"items": "7"}, "items.json cannot be read ("),
        ({"items": '"abcde"'}, "items.json cannot be read ("),
        ({"items": "[]"}, "items.json cannot be read ("),
        ({"items": '{"a": "1"}'}, "items.json cannot be read ("),
        ({"items": '["a", 7]'}, "items.json cannot be read ("),
        (
            {"items": '{"a": 1, "b": 1}'},
            "items.json gives two items one code; it must hold a list of item ids in order",
        ),
        (
            {"items": '["a", "b", "c", "d", "z"]'},
            "rank.txt, row 2 (user 'bob', position 2): the domain has no item 'z'",
        ),
    ],
)
def test_files_of_dllm2rec(ranking, changed, text):
    assert ranking(**changed).startswith(text)


# --- settings


BESIDE = {"positions": "p", "item_ids": "i"}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"scores": "none", "confidence": "c"}, "confidence belongs to format: dllm2rec"),
        ({"scores": "none", "format": "dllm2rec"}, "format: dllm2rec needs positions and item_ids: "),
        ({"scores": "logprob", "format": "dllm2rec", **BESIDE}, "scores: logprob does not fit format: dllm2rec"),
        ({"scores": "logit", "format": "dllm2rec", **BESIDE}, "scores: logit needs confidence"),
        ({"scores": "none", "format": "dllm2rec", **BESIDE, "confidence": "c"}, "confidence has no effect"),
        ({"scores": "logit", "listed_mass": 1}, "less than 1"),
        ({"scores": "logit", "listed_mass": 0}, "greater than 0"),
        ({"scores": "logit", "temperature": 0}, "greater than 0"),
        ({}, "Field required"),
    ],
)
def test_settings_that_do_not_fit_together(values, text):
    with pytest.raises(ValidationError) as caught:
        Settings(path="x", **values)
    assert text in str(caught.value)
