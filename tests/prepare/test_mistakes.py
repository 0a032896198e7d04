"""Every mistake in the raw files is answered by one clear line, and the store stays as it was."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ckd.stages.prepare.address import corpus_address
from ckd.stages.prepare.prepare import prepare_domain
from ckd.stages.prepare.settings import DomainSettings
from ckd.stages.tables.jsonl import _complaint
from ckd.storage.errors import UserError


@pytest.fixture
def refusal(store):
    """A function that prepares a folder, expects a refusal, and returns its text without the folder's path."""

    def prepare(path, **values):
        with pytest.raises(UserError) as caught:
            prepare_domain(store, "domains.shop", DomainSettings(path=path, **{"k_core": 1, **values}))
        assert not store.root.exists(), "a refusal leaves no trace in the store"
        text = str(caught.value)
        assert "\n" not in text
        return text.replace(f"{path}/", "").replace(str(path), "FOLDER")

    return prepare


def test_missing_folder(tmp_path, refusal):
    assert refusal(tmp_path / "gone") == (
        "the data folder FOLDER does not exist; set the domain's path to the folder that holds items.* and "
        "interactions.*"
    )
    with pytest.raises(UserError, match="does not exist"):
        corpus_address(DomainSettings(path=tmp_path / "gone"))


def test_a_file_for_a_folder(tmp_path, refusal):
    (tmp_path / "x.csv").touch()
    assert "FOLDER is not a folder" in refusal(tmp_path / "x.csv")


def test_no_file(folder, refusal):
    path = folder("csv")
    (path / "items.csv").rename(path / "products.csv")
    assert refusal(path) == (
        "FOLDER has no items file, only interactions.csv, products.csv; "
        "exactly one of items.parquet, items.csv, items.tsv, items.jsonl is expected"
    )


def test_two_files(folder, refusal):
    path = folder("csv")
    (path / "items.tsv").write_text("item_id\n")
    assert refusal(path).startswith("FOLDER holds items.csv, items.tsv; exactly one of items.parquet,")


def test_unknown_format(folder, refusal):
    path = folder("csv")
    (path / "items.csv").rename(path / "items.csv.gz")
    assert refusal(path).startswith("FOLDER holds items.csv.gz, a format that nothing here reads; exactly one of")


def test_a_stray_file_beside_the_data_is_no_mistake(folder, store):
    path = folder("csv")
    (path / "items.md").write_text("what the columns mean")
    assert prepare_domain(store, "domains.shop", DomainSettings(path=path, k_core=1))


def test_missing_column(folder, refusal, interactions):
    interactions["userid"] = interactions.pop("user_id")
    assert refusal(folder("csv", interactions=interactions)) == (
        "interactions.csv has no column 'user_id', only item_id, timestamp, userid; nearest: 'userid'; "
        "rename it in the file or map it with domains.shop.columns: {user_id: <name in the file>}"
    )


def test_mapping_to_a_column_that_is_not_there(folder, refusal):
    assert refusal(folder(), columns={"title": "titles"}) == (
        "domains.shop.columns.title: no raw file has a column 'titles' for it "
        "(there are item_id, title, brand, categories, description); nearest: 'title'"
    )


def test_mapping_to_a_column_of_the_other_file(folder, refusal):
    assert "no raw file has a column 'timestamp' for it" in refusal(folder(), columns={"title": "timestamp"})


def test_too_many_unusable_interactions(folder, refusal, interactions):
    interactions["user_id"][1] = None
    interactions["item_id"][3] = "gone"
    interactions["item_id"][4] = "gone"
    interactions["timestamp"] = ["1", "2", "3", "4", "5", "6", "yesterday", "8"]
    assert refusal(folder("csv", interactions=interactions)) == (
        "interactions.csv: 4 of 8 rows (50.0%) are unusable, 5.0% are allowed: 1 without user_id (first: row 2), "
        "2 with an item_id that the items file lacks (first: row 4), "
        "1 with a missing or unreadable timestamp (first: row 7); "
        "correct the rows, or raise domains.shop.max_rejected"
    )


def test_too_many_unusable_items(folder, refusal, items):
    items["item_id"] = ["a", "b", "a", None, "c"]
    assert refusal(folder("jsonl", items)).startswith(
        "items.jsonl: 2 of 5 rows (40.0%) are unusable, 5.0% are allowed: 1 without item_id (first: row 4), "
        "1 repeat an item_id of an earlier row (first: row 3); correct"
    )


def test_the_allowed_share_is_allowed(folder, store, interactions):
    interactions["user_id"][7] = None
    path = folder("csv", interactions=interactions)
    assert prepare_domain(store, "domains.shop", DomainSettings(path=path, k_core=1, max_rejected=1 / 8))


def test_nothing_left(folder, refusal):
    assert refusal(folder(), k_core=5) == (
        "FOLDER: nothing is left of the 8 usable interactions after the 5-core (users with fewer than 3 are always "
        "dropped); lower domains.shop.k_core or add data"
    )


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_no_rows_at_all(folder, refusal, kind):
    empty = {name: pa.array([], pa.string()) for name in ("user_id", "item_id", "timestamp")}
    assert "nothing is left of the 0 usable interactions" in refusal(folder(kind, {"item_id": empty["item_id"]}, empty))


def test_identifiers_of_a_wrong_type(folder, refusal, interactions):
    interactions["user_id"] = [True] * 8
    assert refusal(folder(interactions=interactions)) == (
        "interactions.parquet: column 'user_id' has type bool; identifiers must be strings or integers"
    )
    interactions["user_id"] = [1.5] * 8
    assert "column 'user_id' holds fractional or huge numbers; write identifiers as strings" in refusal(
        folder(interactions=interactions)
    )


def test_times_of_a_wrong_type(folder, refusal, interactions):
    interactions["timestamp"] = [[1]] * 8
    assert refusal(folder(interactions=interactions)).startswith(
        "interactions.parquet: column 'timestamp' has type list<element: int64>; it must hold numbers, dates or"
    )


def test_text_of_a_wrong_type(folder, refusal, items):
    items["title"] = [{"en": "x"}] * 5
    assert "items.jsonl: column 'title' of type struct<en: string> holds no text" in refusal(folder("jsonl", items))


def test_repeated_column(folder, refusal):
    path = folder("csv")
    (path / "items.csv").write_text("item_id,item_id\na,b\n")
    assert refusal(path) == "items.csv names the column 'item_id' more than once; rename or remove one"


def test_row_with_too_many_fields(folder, refusal):
    path = folder("csv")
    (path / "items.csv").write_text('item_id,title\na,"two\nlines"\n\nb,x,y\n')
    assert refusal(path) == (
        "items.csv, row 2: 3 fields where the header has 2: 'b,x,y'; quote values that hold the delimiter"
    )


@pytest.mark.parametrize("rows", ['a,x\nb,"torn\nc,y\n', 'a,x\nb,"torn', 'a,x\nb,"to""rn', 'a,x\nb,"'])
def test_quote_that_is_never_closed(folder, refusal, rows):
    path = folder("csv")
    (path / "items.csv").write_text(f"item_id,title\n{rows}")
    assert refusal(path) == "items.csv, row 2: a quote is opened and never closed; is the file whole?"


@pytest.mark.parametrize("last", ['""', '"\n"', '"""', 'x"', '","', '""""', '"a\n"\n', "\n"])
def test_closed_quotes_at_the_end_are_no_mistake(folder, store, last):
    path = folder("csv")
    (path / "items.csv").write_text(f"item_id,title\na,x\nb,y\n007,z\nNA,{last}")
    if last == '"""':  # one escaped quote and no end
        with pytest.raises(UserError, match="never closed"):
            prepare_domain(store, "domains.shop", DomainSettings(path=path, k_core=1))
    else:
        assert prepare_domain(store, "domains.shop", DomainSettings(path=path, k_core=1))


def test_bytes_that_are_not_utf8(folder, refusal):
    path = folder("csv")
    (path / "items.csv").write_bytes(b"item_id,title\na,x\nb,caf\xe9\n")
    assert refusal(path) == "items.csv, line 3: not UTF-8; save the file as UTF-8"
    (path / "items.csv").write_bytes("item_id,title\na,x\n".encode("utf-16"))
    assert refusal(path) == "items.csv, line 1: not UTF-8; save the file as UTF-8"


def test_empty_files(folder, refusal):
    path = folder("csv")
    (path / "items.csv").write_bytes(b"")
    assert refusal(path) == "items.csv is empty; its first row must name the columns"
    path = folder("jsonl")
    (path / "items.jsonl").write_bytes(b"")
    assert refusal(path).startswith("items.jsonl cannot be read as JSON lines (it is empty)")
    (path / "items.jsonl").write_bytes(b"\n")
    assert refusal(path).startswith("items.jsonl has no column 'item_id', only none; rename it")


def test_torn_json_line(folder, refusal):
    path = folder("jsonl")
    (path / "items.jsonl").write_text('{"item_id": "a"}\n\n{"item_id":')
    assert refusal(path).startswith("items.jsonl, row 2: not a JSON object in UTF-8 (")


def test_json_file_that_may_not_be_read_is_not_called_empty(tmp_path):
    said = _complaint(tmp_path / "gone.jsonl", PermissionError(13, "Permission denied"))
    assert "(it is empty)" not in said and "Permission denied" in said


def test_json_line_that_is_nested_too_deeply(folder, refusal):
    path = folder("jsonl")
    deep = 100_000
    text = (path / "items.jsonl").read_text()
    (path / "items.jsonl").write_text(text + '{"item_id": ' + "[" * deep + "]" * deep + "}\n")
    assert "items.jsonl, row 6: not a JSON object in UTF-8 (" in refusal(path)


def test_json_line_that_is_no_object(folder, refusal):
    path = folder("jsonl")
    (path / "items.jsonl").write_text('{"item_id": "a"}\n["b"]\n')
    assert refusal(path) == "items.jsonl, row 2: a list where a JSON object is expected; correct or remove the line"


def test_json_field_that_changes_its_type(folder, refusal):
    path = folder("jsonl")
    (path / "items.jsonl").write_text('{"item_id": null}\n{"item_id": "a"}\n{"item_id": 7}\n')
    assert refusal(path) == (
        "items.jsonl, row 3: field 'item_id' is a number, but a string in row 2; give it one type throughout"
    )


def test_json_that_is_not_utf8(folder, refusal):
    path = folder("jsonl")
    (path / "items.jsonl").write_bytes(b'{"item_id": "a"}\n{"item_id": "caf\xe9"}\n')
    assert refusal(path).startswith("items.jsonl, row 2: not a JSON object in UTF-8 (")


def test_torn_parquet(folder, refusal):
    path = folder("parquet")
    whole = (path / "items.parquet").read_bytes()
    for torn in (b"", whole[:-20], b"not parquet at all, but long enough for a footer"):
        (path / "items.parquet").write_bytes(torn)
        assert refusal(path).startswith("items.parquet cannot be read as Parquet (")


def test_parquet_strings_that_are_not_utf8(folder, refusal):
    path = folder("parquet")
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xe9"]).buffers())
    pq.write_table(pa.table({"item_id": broken}), path / "items.parquet")
    assert refusal(path).startswith("items.parquet cannot be read as Parquet (")
