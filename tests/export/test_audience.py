"""Files that say whom to recommend to."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ckd.stages.export.audience import everybody, read_audience
from ckd.storage.errors import UserError


@pytest.fixture
def read(trained, tmp_path):
    """A function of a file's name, its content and a domain: whom it names."""

    def of(name, content, domain="a", skip=False):
        path = tmp_path / name
        if isinstance(content, str):
            path.write_text(content)
        elif path.suffix == ".jsonl":
            path.write_text("".join(f"{json.dumps(row)}\n" for row in content))
        else:
            pq.write_table(pa.table(content), path)
        return read_audience(path, trained.corpora[domain], domain, skip)

    return of


def histories(audience):
    """``{user: item IDs}``."""
    ids = audience.corpus.items["item_id"].to_pylist()
    users = audience.corpus.user_ids.to_pylist()
    return {users[user]: [ids[code] for code in audience.corpus.sequence_of(user)] for user in audience.users}


def test_without_a_file_it_is_everybody_with_the_whole_sequence(trained):
    corpus = trained.corpora["a"]
    audience = everybody(corpus)
    assert audience.known
    assert list(histories(audience)) == corpus.user_ids.to_pylist()
    assert sum(map(len, histories(audience).values())) == len(corpus.sequence)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("users.csv", "user_id,age\nu07,3\nu00,4\nu39,5\nu07,3\n"),
        ("users.jsonl", [{"user_id": user} for user in ("u07", "u00", "u39")]),
        ("users.parquet", {"user_id": ["u07", "u00", "u39"]}),
    ],
)
def test_users_are_served_once_in_the_order_of_the_file(trained, read, name, content):
    audience = read(name, content)
    assert audience.known
    assert audience.users.tolist() == [7, 0, 39]
    assert audience.corpus is trained.corpora["a"]


@pytest.mark.parametrize(
    ("name", "content"), [("u.csv", "user_id\n107\n100\n"), ("u.parquet", {"user_id": [107, 100]})]
)
def test_whole_numbers_are_found_as_texts_too(read, name, content):
    assert read(name, content, "b").users.tolist() == [7, 0]


LISTS = [{"user_id": "new", "items": ["i03", "i01", "i03"]}, {"user_id": "u00", "items": ["i10"]}]
ROWS = "user_id,item_id\nnew,i03\nu00,i10\nnew,i01\nnew,i03\n"
TIMED = "user_id,item_id,timestamp\nnew,i03,{2}\nu00,i10,{0}\nnew,i01,{1}\nnew,i03,{0}\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("h.jsonl", LISTS),
        ("h.parquet", {"user_id": ["new", "u00"], "items": [["i03", "i01", "i03"], ["i10"]]}),
        ("h.csv", ROWS),
        ("h.csv", TIMED.format(9, 10, 100)),
        ("h.csv", TIMED.format("9.5", "10", "1e2")),
        ("h.csv", TIMED.format("2024-02-29T01:02:03", "2024-02-29 11:00:00", "2024-03-01")),
        ("h.csv", TIMED.format("2024-02-29T01:02:03Z", "2024-02-29T03:00:00+01:00", "2024-03-01T00:00:00Z")),
        ("h.csv", TIMED.format("2024-02-29T01:02:03Z", " 2024-02-29 11:00:00", "9999-01-01")),
        (
            "h.parquet",
            {
                "user_id": ["new", "u00", "new", "new"],
                "item_id": ["i03", "i10", "i01", "i03"],
                "timestamp": pa.array([3, 1, 2, 1], pa.timestamp("s")),
            },
        ),
    ],
)
def test_histories_of_anybody_oldest_item_first(read, name, content):
    audience = read(name, content)
    assert not audience.known
    assert histories(audience) == {"new": ["i03", "i01", "i03"], "u00": ["i10"]}


@pytest.mark.parametrize("kind", [pa.list_(pa.string(), 2), pa.list_view(pa.string()), pa.large_list(pa.string())])
def test_lists_may_be_of_any_kind(read, kind):
    lists = pa.array([["i03", "i01"], ["i10", "i10"]], kind)
    audience = read("h.parquet", {"user_id": ["new", "u00"], "items": lists})
    assert histories(audience) == {"new": ["i03", "i01"], "u00": ["i10", "i10"]}


def test_a_column_of_no_times_is_named(read):
    spans = pa.array([1, 2], pa.duration("s"))
    with pytest.raises(UserError, match=r"column 'timestamp' of type duration\[s\] holds no times"):
        read("h.parquet", {"user_id": ["x", "x"], "item_id": ["i01", "i02"], "timestamp": spans})


def test_items_of_one_time_keep_the_order_of_the_file(read):
    text = "user_id,item_id,timestamp\nx,i05,1\nx,i02,1\nx,i09,0\n"
    assert histories(read("h.csv", text)) == {"x": ["i09", "i05", "i02"]}


def test_unknown_users_are_refused_or_left_out(read, tmp_path):
    text = "user_id\nu01\nx\ny\nz\nx\nw\n"
    said = f"4 of 5 users in {tmp_path / 'u.csv'} that domain a does not have: 'x', 'y', 'z', ..."
    with pytest.raises(UserError) as refused:
        read("u.csv", text)
    assert str(refused.value) == f"{said}; correct the file, or leave them out with --unknown skip"
    audience = read("u.csv", text, skip=True)
    assert audience.users.tolist() == [1]
    assert audience.notes == (f"left out {said}",)


def test_unknown_items_are_refused_or_left_out(read, tmp_path):
    lists = [*LISTS, {"user_id": "odd", "items": ["pen"]}, {"user_id": "even", "items": ["i02", "pen"]}]
    said = f"1 of 5 items in {tmp_path / 'h.jsonl'} that domain a does not have: 'pen'"
    with pytest.raises(UserError, match=r"^1 of 5 items"):
        read("h.jsonl", lists)
    audience = read("h.jsonl", lists, skip=True)
    assert histories(audience) == {"new": ["i03", "i01", "i03"], "u00": ["i10"], "even": ["i02"]}
    assert audience.notes == (f"left out {said}", "left out 1 of 4 users whose histories are empty")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("u.csv", "user\nu01\n", "u.csv has no column user_id; it has user$"),
        ("u.csv", "user_id\nu01\n \n", "u.csv, row 2: no user_id; give one or remove the row"),
        ("h.csv", "user_id,items\nu01,i01 i02\n", "holds no lists; write Parquet or JSONL, or a row per interaction"),
        ("h.csv", "user_id,item_id\nu01,i01\nu01,\n", "holds 1 items without an ID"),
        (
            "h.csv",
            "user_id,item_id,timestamp\nx,i01,then\n",
            "row 1: timestamp 'then' is no time; write numbers,",
        ),
        ("h.csv", "user_id,item_id,timestamp\nx,i01,1\nx,i02,nan\n", "row 2: timestamp .* is no time"),
        ("h.csv", "user_id,item_id,timestamp\nx,i01,99999999999999999999\n", "row 1: timestamp .* is no time"),
        ("h.csv", "user_id,item_id,timestamp\nx,i01,1\nx,i02,\n", "row 2: no timestamp"),
        ("h.jsonl", [LISTS[0], LISTS[0]], "gives a user more than one list; keep one row per user_id"),
        ("h.jsonl", [LISTS[0], {"user_id": "y", "items": []}], "the history of user 'y' is empty; give it an item"),
        ("h.jsonl", [LISTS[0], {"user_id": "y"}], "row 2: no items"),
        ("h.xlsx", "x", "the name must end in one of"),
    ],
)
def test_a_file_that_cannot_be_understood_is_one_line(read, name, content, said):
    with pytest.raises(UserError, match=said) as refused:
        read(name, content)
    assert "\n" not in str(refused.value)
