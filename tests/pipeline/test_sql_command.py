"""`ckd sql` as people and programs see it."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from ckd.pipeline.commands.sql import listing, run_query
from ckd.storage.corpus import write_corpus
from ckd.storage.errors import UserError
from ckd.storage.keys import Address
from ckd.storage.sql import EXAMPLES, VIEWS, Contents
from ckd.storage.store import Store

ODD = 'a "quoted", title\nwith [red]brackets[/red] and \x1b[31mcolour, ' + "long " * 30


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    numbers = range(300)
    texts = {name: [f"{name} {n}" for n in numbers] for name in ("brand", "categories", "description")}
    items = {"item": pa.array(numbers, pa.int32()), "item_id": [f"i{n:03}" for n in numbers]}
    items |= {"title": [ODD, *(f"title {n}" for n in numbers[1:])], **texts}
    items |= {"popularity": pa.array(numbers, pa.int32())}
    users = {"user_id": ["u1"], "items": pa.array([[2, 0, 1]], pa.list_(pa.int32()))}
    users |= {"timestamps": pa.array([[10, 20, 30]], pa.list_(pa.int64()))}
    with Store(tmp_path_factory.mktemp("store")).draft(Address("corpus", {})) as draft:
        write_corpus(draft, pa.table(items), pa.table(users))
        return Contents({"tools": draft.commit()})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def asked(contents: Contents, query: str, form: str = "table", limit: int = 100) -> str:
    stream = io.StringIO()
    run_query(contents, query, form, stream, limit)
    return stream.getvalue()


VALUES = """select 1 as whole, 0.1::float as small, [0.1, null]::float[] as list,
    1.25::decimal(4, 2) as exact, date '2024-02-29' as day, timestamp '2024-02-29 01:02:03' as moment,
    true as yes, null as nothing, 'nan'::double as nan, {'a': [1.5::double, 'inf'::double]} as struct,
    170141183460469231731687303715::hugeint as huge, map {'k': 0.1::float} as map,
    'x'::blob as bytes, 'it''s' as text"""


def test_json_holds_every_value(contents: Contents) -> None:
    assert json.loads(asked(contents, VALUES, "json"), parse_constant=pytest.fail) == [
        {
            "whole": 1,
            "small": 0.1,
            "list": [0.1, None],
            "exact": 1.25,
            "day": "2024-02-29",
            "moment": "2024-02-29T01:02:03",
            "yes": True,
            "nothing": None,
            "nan": None,
            "struct": {"a": [1.5, None]},
            "huge": 170141183460469231731687303715,
            "map": {"k": 0.1},
            "bytes": "78",
            "text": "it's",
        }
    ]


def test_csv_holds_every_value(contents: Contents) -> None:
    (row,) = csv.DictReader(io.StringIO(asked(contents, VALUES, "csv"), newline=""))
    assert row == {
        "whole": "1",
        "small": "0.1",
        "list": "[0.1, null]",
        "exact": "1.25",
        "day": "2024-02-29",
        "moment": "2024-02-29T01:02:03",
        "yes": "true",
        "nothing": "",
        "nan": "nan",
        "struct": '{"a": [1.5, null]}',
        "huge": "170141183460469231731687303715",
        "map": '{"k": 0.1}',
        "bytes": "78",
        "text": "it's",
    }


def test_csv_and_json_give_all_rows_and_odd_texts_back(contents: Contents) -> None:
    query = "select item, title from items order by item"
    from_csv = list(csv.reader(io.StringIO(asked(contents, query, "csv", limit=1), newline="")))
    assert from_csv[:2] == [["item", "title"], ["0", ODD]]
    assert len(from_csv) == 301
    from_json = json.loads(asked(contents, query, "json", limit=1))
    assert from_json[0] == {"item": 0, "title": ODD}
    assert [row["item"] for row in from_json] == list(range(300))


def test_no_rows(contents: Contents) -> None:
    query = "select item, title from items where false"
    assert asked(contents, query, "csv") == "item,title\r\n"
    assert json.loads(asked(contents, query, "json")) == []
    assert asked(contents, query).splitlines()[-1] == "0 rows"


def test_equal_names_do_not_lose_a_column(contents: Contents) -> None:
    (row,) = json.loads(asked(contents, "select 1 as a, 2 as a, 3 as a_1", "json"))
    assert list(row.values()) == [1, 2, 3]


def test_table_says_how_many_rows_it_leaves_out(contents: Contents) -> None:
    lines = asked(contents, "select item from items order by item", limit=7).splitlines()
    assert [line.strip() for line in lines[2:9]] == list("0123456")
    assert lines[-1] == "300 rows, 293 of them left out: --limit-rows 300 shows all"
    assert asked(contents, "select 1").splitlines()[-1] == "1 row"


def test_piped_table_is_never_shortened(contents: Contents) -> None:
    text = asked(contents, "select title, description, 0.1234567890123456::double as number from items limit 1")
    assert "long " * 30 in text + " "
    assert "0.1234567890123456" in text
    assert "…" not in text
    assert "[red]brackets[/red]" in text


@pytest.mark.parametrize("width", [40, 60, 100])
def test_table_on_a_terminal_shortens_texts_but_no_numbers(
    contents: Contents, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    stream = Terminal()
    query = "select title, 0.1234567890123456::double as n, item_id from items limit 2"
    run_query(contents, query, "table", stream)
    lines = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue()).splitlines()
    assert all(len(line.rstrip()) <= width for line in lines)
    assert stream.getvalue().count("0.1234567890123456") == 2
    assert "i001" in stream.getvalue()
    assert "…" in stream.getvalue()


def test_control_characters_do_not_reach_the_terminal(contents: Contents) -> None:
    text = asked(contents, "select title from items where item = 0")
    assert "\x1b" not in text
    assert "\\x1b[31mcolour" in text
    assert "title\\nwith" in text


def test_a_plan_is_printed_as_it_is(contents: Contents) -> None:
    text = asked(contents, "explain analyze select sum(popularity) from items")
    assert "Ungrouped Aggregate" in text
    assert "explain_value" not in text


def test_listing_names_every_view_column_and_example() -> None:
    text = listing()
    for name, view in VIEWS.items():
        assert f"{name}: {view.description}" in text
        assert all(column.meaning in text for column in view.columns.values())
    assert all(query in text for query in EXAMPLES.values())


def test_a_rejected_query_prints_nothing(contents: Contents) -> None:
    stream = io.StringIO()
    with pytest.raises(UserError, match="no view nope"):
        run_query(contents, "select * from nope", "json", stream)
    assert stream.getvalue() == ""


MAIN = "import sys; from ckd.pipeline.cli import main; sys.exit(main())"


def sql(place, *arguments, given=b"", **environment):
    """Run `ckd sql` as a process; return its exit code, output and errors."""
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "sql", *arguments],
        cwd=place.folder,
        input=given,
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode()


NOT_STOPPABLE = "select levenshtein(repeat('a', length * 0 + 300000), repeat('b', 300000)) from sequences limit 1"
"""One call of a function, minutes long, in which DuckDB never looks whether it is to stop."""
ENDLESS = "select count(*) from range(100000000) a, range(10000) b where a.range * b.range % 7 = 3"


@pytest.mark.parametrize(
    "query",
    ["select list(md5(i::varchar)) from range(30000000) t(i)", "select len(range(600000000))"],
    ids=["many rows", "one value"],
)
def test_a_question_that_needs_more_memory_than_it_may_hold_is_refused_in_one_line(labelled, query):
    said = "error: SQL: the question needs more memory than it may hold; ask for less at a time, or give it more"
    assert sql(labelled, query, "--memory", "300MB") == (2, "", f"{said} (--memory)\n")


@pytest.mark.parametrize("query", [ENDLESS, NOT_STOPPABLE], ids=["stoppable", "not stoppable"])
def test_a_question_that_takes_too_long_ends_in_one_line(labelled, query):
    said = "error: the question was stopped after 0.5 s; ask for less at a time, or give it more (--timeout)\n"
    code, out, err = sql(labelled, query, "--timeout", "0.5")
    assert (code, out, err) == (2, "", said)


def test_a_slow_question_writes_nothing_but_its_rows(labelled):
    slow = "select sum(hash(a.range * b.range) % 2) >= 0 as yes from range(20000) a, range(20000) b"
    assert sql(labelled, slow, "--format", "csv") == (0, "yes\r\ntrue\r\n", "")


def wait_until_it_computes(process):
    """Wait until the memory of a `ckd sql` is limited, which it is before it asks, and half a second of computing."""
    proc = Path("/proc") / str(process.pid)
    at_once = None
    while at_once is None or ticks(proc) < at_once + os.sysconf("SC_CLK_TCK") // 2:
        assert process.poll() is None
        limited = re.search(r"Max data size +\d", (proc / "limits").read_text())
        at_once = ticks(proc) if limited and at_once is None else at_once
        time.sleep(0.01)


def ticks(proc):
    return sum(map(int, (proc / "stat").read_text().rpartition(")")[2].split()[11:13]))


@pytest.mark.parametrize("query", [ENDLESS, NOT_STOPPABLE], ids=["stoppable", "not stoppable"])
def test_ctrl_c_ends_a_question(labelled, query):
    command = [sys.executable, "-c", MAIN, "sql", query]
    with subprocess.Popen(command, cwd=labelled.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            wait_until_it_computes(process)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, out) == (130, b"")
    assert err == b"\ninterrupted; run the same command again to go on\n"  # the empty one ends the line of ^C


@pytest.mark.parametrize("size", ["4 apples", "much", "-1GB", "1e3"])
def test_a_size_that_is_none_is_refused(labelled, size):
    code, out, err = sql(labelled, "select 1", "--memory", size)
    assert (code, out) == (2, "")
    assert f"'{size}' is no size; write for instance 500MB, 4GB or 80%" in err


def test_a_small_limit_of_memory_is_enough_for_a_small_question(labelled):
    assert sql(labelled, "select count(*) as n from items", "--memory", "50MB", "--format", "csv")[:2] == (
        0,
        "n\r\n40\r\n",
    )


def test_the_command_answers_from_the_argument_or_standard_input(labelled):
    query = "select count(*) as n from items"
    assert sql(labelled, query, "--format", "json")[:2] == (0, '[\n{"n": 40}\n]\n')
    assert sql(labelled, "-", "--format", "csv", given=f"{query}; -- done\n".encode())[:2] == (0, "n\r\n40\r\n")
    assert sql(labelled) == (0, listing(), "")


def test_every_example_works_as_printed(labelled):
    for query in EXAMPLES.values():
        code, out, err = sql(labelled, query)
        assert (code, err) == (0, ""), query
        assert "row" in out


def test_a_query_that_is_no_text_is_refused(labelled):
    said = "error: the query on standard input is not UTF-8 text\n"
    assert sql(labelled, "-", given=b"select '\xff'") == (2, "", said)


def test_characters_that_the_output_cannot_show_are_escaped(labelled):
    code, out, _ = sql(labelled, "select 'é λ' as word", "--format", "csv", PYTHONIOENCODING="latin-1")
    assert (code, out.split()) == (0, ["word", "é", "\\u03bb"])


def test_what_is_in_the_store_can_be_asked_where_a_domain_is_gone(labelled):
    gone = ("--set", "domains.gone.path=nowhere")
    code, out, err = sql(labelled, "select distinct domain from labels", "--format", "csv", *gone)
    assert (code, out.split()) == (0, ["domain", "tiny"])
    assert err.startswith("left out domain gone: ")
    assert len(err.splitlines()) == 1


def test_what_is_damaged_is_named_and_left_out(labelled, tmp_path):
    place = type(labelled)(tmp_path / "torn")
    shutil.copytree(labelled.folder, place.folder)
    shard = next(place.labels.glob("part-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1])
    said = f"left out {place.labels}: it is damaged; run `ckd precompute` to make it again\n"
    assert sql(place, "select count(*) as n from labels", "--format", "csv") == (0, "n\r\n0\r\n", said)


def test_a_store_that_is_not_there_is_named(labelled):
    code, out, err = sql(labelled, "select count(*) as n from labels", "--format", "csv", "--set", "store=nowhere")
    assert (code, out) == (0, "n\r\n0\r\n")
    assert err == f"there is no store at {labelled.folder / 'nowhere'} yet; the views are empty\n"


@pytest.mark.parametrize("seconds", ["inf", "nan", "0"])
def test_a_timeout_that_is_none_is_a_mistake(labelled, seconds):
    code, out, err = sql(labelled, "select 1", "--timeout", seconds)
    assert (code, out) == (2, "")
    assert "Invalid value for '--timeout'" in err
