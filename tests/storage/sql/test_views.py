"""The views show exactly what was stored; a query can neither change the store nor see anything beside it."""

import json
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from ckd.storage import runs as stored_runs
from ckd.storage.errors import DamagedArtifact, UserError
from ckd.storage.sql import EXAMPLES, VIEWS, Contents, ask, open_views
from ckd.storage.sql.files import ReadOnlyFiles, StoredFile
from ckd.storage.sql.schema import ITEM_ID, USER_ID


def rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    with ask(connection, query) as answer:
        return [row for batch in answer.batches() for row in zip(*(c.to_pylist() for c in batch.columns), strict=True)]


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def described(connection: duckdb.DuckDBPyConnection, view: str) -> dict[str, str]:
    return {name: kind for name, kind, *_ in rows(connection, f"describe {view}")}


def documented(view: str, user_id: str, item_id: str) -> dict[str, str]:
    kinds = {USER_ID: user_id, ITEM_ID: item_id}
    return {name: kinds.get(column.type, column.type) for name, column in VIEWS[view].columns.items()}


@pytest.mark.parametrize("view", VIEWS)
def test_columns_are_those_documented(connection: duckdb.DuckDBPyConnection, view: str) -> None:
    assert described(connection, view) == documented(view, "VARCHAR", "VARCHAR")


@pytest.mark.parametrize("view", VIEWS)
def test_views_of_an_empty_store_are_empty_with_the_same_columns(view: str) -> None:
    with open_views(Contents()) as connection:
        assert described(connection, view) == documented(view, "VARCHAR", "VARCHAR")
        assert rows(connection, f"select * from {view}") == []


@pytest.mark.parametrize("question", EXAMPLES)
def test_examples_run_as_printed(connection: duckdb.DuckDBPyConnection, question: str) -> None:
    assert rows(connection, EXAMPLES[question])


@pytest.mark.parametrize("question", EXAMPLES)
def test_examples_run_on_an_empty_store(question: str) -> None:
    with open_views(Contents()) as connection:
        assert rows(connection, EXAMPLES[question]) == []


def test_only_the_views_are_listed(connection: duckdb.DuckDBPyConnection) -> None:
    assert {name for (name,) in rows(connection, "show tables")} == set(VIEWS)


@pytest.mark.parametrize(
    ("numeric", "kind"), [((True, True), "BIGINT"), ((False, False), "VARCHAR"), ((True, False), "VARCHAR")]
)
def test_identifiers_keep_their_type_unless_domains_differ(
    tmp_path: Path, make_stored: Any, numeric: tuple[bool, bool], kind: str
) -> None:
    stored = make_stored(tmp_path, numeric)
    with open_views(stored.contents) as connection:
        for view in VIEWS:
            assert described(connection, view) == documented(view, kind, kind)
            rows(connection, f"select * from {view}")
        pairs = """select count(*) from labels l join sequences s using (domain, user_id)
            join items i on i.item_id = l.target"""
        assert rows(connection, pairs + " and i.domain = l.domain") == rows(connection, "select count(*) from labels")


def test_items_and_sequences_are_those_of_the_corpora(stored: Any, connection: duckdb.DuckDBPyConnection) -> None:
    for domain, corpus in stored.corpora.items():
        where = f"where domain = {quoted(domain)}"
        found = rows(connection, f"select item, item_id, title, popularity from items {where} order by item")
        columns = [corpus.items[name].to_pylist() for name in ("item", "item_id", "title", "popularity")]
        assert found == [(code, str(name), title, n) for code, name, title, n in zip(*columns, strict=True)]
        sequences = rows(connection, f"select items, length from sequences {where} order by user_id")
        assert sequences == [(corpus.sequence_of(u).tolist(), corpus.lengths[u]) for u in range(corpus.n_users)]


def test_interactions_are_the_targets_of_the_positions_before(
    stored: Any, connection: duckdb.DuckDBPyConnection
) -> None:
    wrong = """select count(*), count(*) filter (where i.item_id <> l.target or x.split <> l.split)
        from labels l join interactions x on x.domain = l.domain and x.user_id = l.user_id
            and x.position = l.position + 1
        join items i on i.domain = x.domain and i.item = x.item"""
    total = sum(corpus.n_positions for corpus in stored.corpora.values())
    assert rows(connection, wrong) == [(2 * total, 0)]
    times = "select min(timestamp - position), max(timestamp - position) from interactions"
    assert rows(connection, times) == [(4, 4)]


@pytest.mark.parametrize("teacher", ["uni's", "rec former"])
@pytest.mark.parametrize("domain", ["tools", "it's [odd] *"])
def test_labels_are_those_written(
    stored: Any, connection: duckdb.DuckDBPyConnection, teacher: str, domain: str
) -> None:
    corpus, blocks = stored.corpora[domain], stored.blocks[teacher, domain]
    where = f"where teacher = {quoted(teacher)} and domain = {quoted(domain)} order by user_id, position"
    columns = "user_id, position, items, logprobs, target_rank, entropy, state"
    found = rows(connection, f"select {columns} from labels {where}")
    expected = []
    for block in blocks:
        for n in range(len(block)):
            state = None if block.state is None else block.state[n].tolist()
            user = str(corpus.user_ids[int(block.user[n])])
            at = block.position[n], block.items[n].tolist(), block.logprobs[n].tolist()
            expected.append((user, *at, block.target_rank[n], block.entropy[n], state))
    assert found == expected

    long = rows(connection, f"select rank, item, logprob, title from label_items {where}, rank")
    codes = np.concatenate([block.items.ravel() for block in blocks])
    titles = corpus.items["title"].to_pylist()
    assert [row[0] for row in long] == list(range(1, blocks[0].k + 1)) * sum(map(len, blocks))
    assert [row[1] for row in long] == codes.tolist()
    assert [row[2] for row in long] == np.concatenate([block.logprobs.ravel() for block in blocks]).tolist()
    assert [row[3] for row in long] == [titles[code] for code in codes]


def test_files_that_no_manifest_names_are_not_read(stored: Any, connection: duckdb.DuckDBPyConnection) -> None:
    total = sum(corpus.n_positions for corpus in stored.corpora.values())
    assert rows(connection, "select count(*) from labels") == [(2 * total,)]


def test_metrics_of_teachers_equal_those_computed_from_the_arrays(
    stored: Any, connection: duckdb.DuckDBPyConnection
) -> None:
    found = rows(connection, "select name, domain, split, metric, value from metrics where owner = 'teacher'")
    expected = {}
    for (teacher, domain), blocks in stored.blocks.items():
        ranks = np.concatenate([block.target_rank for block in blocks]).astype(float)
        splits = np.concatenate([block.split for block in blocks])
        for place, split in ((1, "valid"), (2, "test")):
            of = ranks[splits == place]
            expected[teacher, domain, split, "mrr"] = (1 / of).mean()
            for cut in (10, 50):
                expected[teacher, domain, split, f"recall@{cut}"] = (of <= cut).mean()
                expected[teacher, domain, split, f"ndcg@{cut}"] = np.where(of <= cut, 1 / np.log2(1 + of), 0).mean()
    assert {row[:4]: row[4] for row in found} == pytest.approx(expected, rel=1e-12)
    assert len(found) == len(expected)


def test_runs_metrics_and_ranks_are_those_stored(stored: Any, connection: duckdb.DuckDBPyConnection) -> None:
    columns = "run, student, domains, seed, distilled, alpha, temperature, parameters, epochs, best_epoch"
    run, alone = stored.runs
    assert rows(connection, f"select {columns} from runs order by distilled desc") == [
        (run.path.name, "sasrec", ["tools"], 1, True, 0.25, None, 1234, 9, 4),
        (alone.path.name, "sasrec", ["tools"], 1, False, None, None, 1234, 9, 4),
    ]
    query = f"select split, metric, value from metrics where run = '{run.path.name}' and domain = 'tools'"
    stored_metrics = stored_runs.read_metrics(run, "tools")
    assert {(s, m): v for s, m, v in rows(connection, query)} == {
        (split, name): value for split, of in stored_metrics.items() for name, value in of.items()
    }
    query = f"select rank from ranks where run = '{alone.path.name}' and split = 'test' order by user_id"
    assert [rank for (rank,) in rows(connection, query)] == stored_runs.read_ranks(alone, "tools", "test").tolist()
    paired = "select count(*) from ranks a join ranks b using (user_id, domain, split) where a.run < b.run"
    assert rows(connection, paired) == [(2 * stored.corpora["tools"].n_users,)]


def scans(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[int, int]]:
    """Return files and rows of every Parquet scan that ran."""
    plan = connection.execute(f"explain (analyze, format json) {query}").fetchall()[0][1]
    pending, found = [json.loads(plan)["operator"]], []
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending.extend(node)
        else:
            pending.append(node.get("children", []))
            if "Total Files Read" in node["extra_info"]:
                found.append((int(node["extra_info"]["Total Files Read"]), node["intermediate_rows"]))
    return sorted(found)


def test_filters_on_label_items_prune_files_and_rows_before_unnest(
    stored: Any, connection: duckdb.DuckDBPyConnection
) -> None:
    query = "select sum(logprob) from label_items where teacher = 'rec former' and domain = 'tools'"
    corpus = stored.corpora["tools"]
    everything = scans(connection, query)
    assert everything == sorted([(1, corpus.n_items), (2, corpus.n_positions)])
    tested = scans(connection, query + " and split = 'test'")
    assert tested == sorted([(1, corpus.n_items), (2, corpus.n_users)])


def test_filter_on_a_run_reads_only_its_file(stored: Any, connection: duckdb.DuckDBPyConnection) -> None:
    run = stored.runs[0]
    query = f"select avg(rank) from ranks where run = '{run.path.name}'"
    assert scans(connection, query) == [(1, 2 * stored.corpora["tools"].n_users)]


@pytest.mark.parametrize(
    "question",
    [
        "select 1;",
        "-- a comment\nselect 1 -- another",
        "from items limit 1",
        "values (1)",
        "table runs",
        "summarize runs",
        "show runs",
        "explain select * from items",
        "Explain /* and */ Analyze select * from items",
        "with recursive t(n) as (select 1 union all select n + 1 from t where n < 3) from t",
        "select * from range(3), (describe items)",
        "from items union all by name from items",
        "pivot metrics on split in ('valid', 'test') using avg(value) group by name",
        "select now(), uuid(), interval 1 day",
    ],
)
def test_questions_are_answered(connection: duckdb.DuckDBPyConnection, question: str) -> None:
    assert rows(connection, question)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("selec 1", ["syntax error", '"selec"']),
        ("select * from label", ["no view label", "did you mean labels?", "label_items", "sequences"]),
        ("select * from nope", ["no view nope;", "items, sequences"]),
        ("select usr_id from labels", ["usr_id", "Candidate bindings", "user_id"]),
        ("select foo(1)", ["foo"]),
        ("select '1' + items from labels", ["No function matches"]),
        ("select error('boom') from range(100000) t(i) where i = 99999", ["boom"]),
        ("select cast('a' || i as int) from range(3) t(i)", ["Could not convert"]),
        ("pivot metrics on split using avg(value)", ["ON column IN"]),
        ("explain (format json) select 1", ["takes no options"]),
    ],
)
def test_errors_are_one_line_with_what_helps(
    connection: duckdb.DuckDBPyConnection, query: str, told: list[str]
) -> None:
    with pytest.raises(UserError) as refusal:
        rows(connection, query)
    assert "\n" not in str(refusal.value)
    assert "LINE 1" not in str(refusal.value)
    for part in told:
        assert part in str(refusal.value)


def test_a_query_too_big_for_memory_is_a_user_error(stored: Any) -> None:
    small = open_views(stored.contents, memory_limit="20MB", threads=1)
    with small as connection, pytest.raises(UserError, match=r"(?i)memory"):
        rows(connection, "select list(md5(i::varchar)) from range(3000000) t(i)")


def test_a_limit_of_memory_that_is_none_is_a_user_error(stored: Any) -> None:
    with pytest.raises(UserError, match="apples"):
        open_views(stored.contents, memory_limit="4 apples")


ENDLESS = "select count(*) from range(100000000) a, range(10000) b where a.range * b.range % 7 = 3"


def test_a_question_that_takes_too_long_is_stopped(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(UserError, match=r"stopped after 0\.2 s.*--timeout"):
        ask(connection, ENDLESS, 0.2)
    assert rows(connection, "select 1") == [(1,)]


def test_the_time_limit_counts_all_batches_and_nothing_between_them(connection: duckdb.DuckDBPyConnection) -> None:
    with ask(connection, "select i from range(1000000000000) t(i)", 1) as answer:
        batches = answer.batches()
        assert next(batches).num_rows
        threading.Event().wait(1.2)
        assert next(batches).num_rows
        with pytest.raises(UserError, match="stopped after 1 s"):
            deque(batches, maxlen=0)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let this process be interrupted, also where a shell started it in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_interrupt_stops_a_running_query(connection: duckdb.DuckDBPyConnection, interruptible: None) -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        rows(connection, ENDLESS)
    assert rows(connection, "select 1") == [(1,)]


def test_a_flipped_bit_is_reported_and_not_answered(tmp_path: Path, make_stored: Any) -> None:
    stored = make_stored(tmp_path, (False, False))
    path = stored.labels[1].artifact.path / "part-00001.parquet"
    damaged = bytearray(path.read_bytes())
    damaged[200] ^= 1
    path.write_bytes(damaged)
    with open_views(stored.contents) as connection:
        assert rows(connection, "select count(*) from labels where teacher = 'rec former'")
        with pytest.raises(DamagedArtifact, match=r"part-00001\.parquet is damaged.*make it again$"):
            rows(connection, "select sum(entropy) from labels")


def ask_every_view(contents: Contents) -> None:
    with open_views(contents, threads=1) as connection:
        for view in VIEWS:
            rows(connection, f"select bit_xor(hash(columns(*))) from {view}")


@pytest.mark.parametrize("place", [4, 0.5, -30, -8, -1], ids=["start", "middle", "footer", "length", "end"])
def test_no_view_gives_a_number_from_a_file_with_a_flipped_bit(tmp_path: Path, make_stored: Any, place: float) -> None:
    stored = make_stored(tmp_path, (False, False))
    viewed = {path for _, _, artifact in stored.labels for path in artifact.path.glob("part-0000*.parquet")}
    for artifact in (*stored.artifacts.values(), *stored.runs):
        viewed.update(artifact.path / name for name in artifact.files if name.endswith(".parquet"))
    assert len(viewed) == 2 * 2 + 4 * 2 + 2 * 2
    for path in sorted(viewed):
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[int(place * len(whole)) if isinstance(place, float) else place] ^= 1
        path.write_bytes(damaged)
        with (
            pytest.raises(DamagedArtifact, match=rf"{path.name} is damaged"),
            open_views(stored.contents) as connection,
        ):
            for view in VIEWS:
                rows(connection, f"select bit_xor(hash(columns(*))) from {view}")
        path.write_bytes(whole)


def test_a_flipped_bit_in_a_file_that_views_open_is_reported(tmp_path: Path, make_stored: Any) -> None:
    stored = make_stored(tmp_path, (False, False))
    path = stored.artifacts["tools"].path / "items.parquet"
    damaged = bytearray(path.read_bytes())
    damaged[200] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DamagedArtifact, match=r"items\.parquet is damaged"):
        open_views(stored.contents)


def test_threads_that_share_a_file_do_not_move_each_other(stored: Any) -> None:
    whole = (stored.runs[0].path / "ranks.parquet").read_bytes()
    stored_file = StoredFile(stored.runs[0], "ranks.parquet")
    files = ReadOnlyFiles()
    file = files.open(files.add(stored_file), "rb")
    file.seek(10)
    with ThreadPoolExecutor(1) as other:
        other.submit(file.seek, 200).result()
        assert file.read(2) == whole[10:12]
        assert other.submit(file.read, len(whole)).result() == whole[200:]


def test_many_threads_read_what_one_reads(stored: Any) -> None:
    query = "select bit_xor(hash(columns(*))) from label_items"
    with open_views(stored.contents, threads=1) as connection:
        expected = rows(connection, query)
    with open_views(stored.contents, threads=8) as connection:
        assert [rows(connection, query) for _ in range(20)] == [expected] * 20


def test_two_label_artifacts_of_one_teacher_and_domain_are_a_mistake(stored: Any) -> None:
    with pytest.raises(ValueError, match="twice"):
        Contents(labels=[stored.labels[0], stored.labels[0]])
