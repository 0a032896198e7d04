"""The views show exactly what was stored; a query can neither change the store nor see anything beside it."""

import hashlib
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
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ckd.storage import labels as stored_labels
from ckd.storage import runs as stored_runs
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus, read_corpus, write_corpus
from ckd.storage.errors import DamagedArtifact, UserError
from ckd.storage.keys import Address
from ckd.storage.labels import LabelBlock
from ckd.storage.sql import EXAMPLES, VIEWS, Contents, LabelSource, ask, open_views
from ckd.storage.sql.files import ReadOnlyFiles, StoredFile
from ckd.storage.sql.schema import ITEM_ID, USER_ID
from ckd.storage.store import Store

N_ITEMS, K, WIDTH = 30, 12, 4
TEACHERS = ("uni's", "rec former")
DOMAINS = ("tools", "it's [odd] *")
"""Names come from users: quotes and wildcards must do no harm."""


def commit_corpus(store: Store, domain: str, numeric: bool) -> Artifact:
    random = np.random.default_rng(len(domain))
    lengths = random.integers(3, 9, 20)
    sequences = [random.integers(0, N_ITEMS, length).astype(np.int32) for length in lengths]
    ids = (lambda kind, n: [*range(100, 100 + n)]) if numeric else (lambda kind, n: [f"{kind}{i:03}" for i in range(n)])
    items = pa.table(
        {
            "item": pa.array(np.arange(N_ITEMS, dtype=np.int32)),
            "item_id": ids("i", N_ITEMS),
            "title": [f"title {code}, \"the\" 'one'" for code in range(N_ITEMS)],
            "brand": ["b"] * N_ITEMS,
            "categories": ["c"] * N_ITEMS,
            "description": ["d"] * N_ITEMS,
            "popularity": pa.array(np.arange(N_ITEMS, dtype=np.int32)),
        }
    )
    users = pa.table(
        {
            "user_id": ids("u", len(sequences)),
            "items": pa.array(sequences, pa.list_(pa.int32())),
            "timestamps": pa.array([np.arange(len(one)) + 5 for one in sequences], pa.list_(pa.int64())),
        }
    )
    with store.draft(Address("corpus", {"domain": domain})) as draft:
        write_corpus(draft, items, users)
        return draft.commit()


def make_block(corpus: Corpus, first: int, last: int, seed: int, with_state: bool) -> LabelBlock:
    random = np.random.default_rng([seed, first])
    at = corpus.positions(first, last)
    logprobs = np.log(random.dirichlet(np.ones(N_ITEMS), len(at))).astype(np.float32)
    best = np.argsort(-logprobs, axis=1)
    target = at.target[:, None]
    return LabelBlock(
        user=at.user,
        position=at.position,
        split=at.split,
        target=at.target,
        items=best[:, :K].astype(np.int32),
        logprobs=np.take_along_axis(logprobs, best[:, :K], 1),
        logsumexp=random.normal(size=len(at)).astype(np.float32),
        kept_mass=np.exp(np.take_along_axis(logprobs, best[:, :K], 1)).sum(1),
        target_logprob=np.take_along_axis(logprobs, target, 1)[:, 0],
        target_rank=(1 + np.argmax(best == target, axis=1)).astype(np.int32),
        entropy=-(np.exp(logprobs) * logprobs).sum(1),
        state=random.normal(size=(len(at), WIDTH)).astype(np.float32) if with_state else None,
    )


def commit_labels(store: Store, teacher: str, domain: str, corpus: Corpus) -> tuple[Artifact, list[LabelBlock]]:
    """Two shards with all users, and a file that no manifest names."""
    seed = TEACHERS.index(teacher)
    blocks = [make_block(corpus, *span, seed, with_state=seed == 0) for span in ((0, 11), (11, corpus.n_users))]
    place = (("teacher", str(seed)), ("domain", str(DOMAINS.index(domain))))
    with store.draft(Address("labels", {"teacher": teacher, "domain": domain}, place)) as draft:
        for number, block in enumerate(blocks):
            stored_labels.write_part(draft, number, block, corpus, {})
        artifact = draft.commit()
    (artifact.path / "part-00077.parquet").write_bytes((artifact.path / "part-00000.parquet").read_bytes())
    return artifact, blocks


def commit_run(store: Store, domain: str, corpus: Corpus, distilled: bool) -> Artifact:
    ranks = {
        split: np.random.default_rng([distilled, place]).integers(1, N_ITEMS, corpus.n_users).astype(np.int32)
        for place, split in enumerate(("valid", "test"))
    }
    inputs = {"student": "sasrec", "domains": [domain], "seed": 1, "distilled": distilled}
    with store.draft(Address("runs", {**inputs, "distill": {"alpha": 0.25} if distilled else {}})) as draft:
        stored_runs.write_metrics(
            draft,
            {domain: {split: {"mrr": float((1 / of).mean()), "ndcg@10": 0.5} for split, of in ranks.items()}},
        )
        stored_runs.write_ranks(draft, {domain: ranks}, {domain: corpus})
        return draft.commit({"epochs": 9, "best_epoch": 4, "parameters": 1234})


class Stored:
    """A store with two domains, two teachers, two runs, and what went into it."""

    def __init__(self, root: Path, numeric: tuple[bool, bool]) -> None:
        self.store = Store(root)
        self.artifacts = {d: commit_corpus(self.store, d, n) for d, n in zip(DOMAINS, numeric, strict=True)}
        self.corpora = {domain: read_corpus(artifact) for domain, artifact in self.artifacts.items()}
        self.blocks: dict[tuple[str, str], list[LabelBlock]] = {}
        self.labels = []
        for teacher in TEACHERS:
            for domain, corpus in self.corpora.items():
                artifact, self.blocks[teacher, domain] = commit_labels(self.store, teacher, domain, corpus)
                self.labels.append(LabelSource(teacher, domain, artifact))
        self.runs = [commit_run(self.store, "tools", self.corpora["tools"], distilled) for distilled in (True, False)]
        self.contents = Contents(self.artifacts, self.labels, self.runs)

    def digests(self) -> dict[str, str]:
        files = (path for path in self.store.root.rglob("*") if path.is_file())
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return Stored(tmp_path_factory.mktemp("st'o[r]e *"), (False, True))


@pytest.fixture(scope="module")
def connection(stored: Stored) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_views(stored.contents, threads=1) as connection:
        yield connection


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
    tmp_path: Path, numeric: tuple[bool, bool], kind: str
) -> None:
    stored = Stored(tmp_path, numeric)
    with open_views(stored.contents) as connection:
        for view in VIEWS:
            assert described(connection, view) == documented(view, kind, kind)
            rows(connection, f"select * from {view}")
        pairs = """select count(*) from labels l join sequences s using (domain, user_id)
            join items i on i.item_id = l.target"""
        assert rows(connection, pairs + " and i.domain = l.domain") == rows(connection, "select count(*) from labels")


def test_items_and_sequences_are_those_of_the_corpora(stored: Stored, connection: duckdb.DuckDBPyConnection) -> None:
    for domain, corpus in stored.corpora.items():
        where = f"where domain = {quoted(domain)}"
        found = rows(connection, f"select item, item_id, title, popularity from items {where} order by item")
        columns = [corpus.items[name].to_pylist() for name in ("item", "item_id", "title", "popularity")]
        assert found == [(code, str(name), title, n) for code, name, title, n in zip(*columns, strict=True)]
        sequences = rows(connection, f"select items, length from sequences {where} order by user_id")
        assert sequences == [(corpus.sequence_of(u).tolist(), corpus.lengths[u]) for u in range(corpus.n_users)]


def test_interactions_are_the_targets_of_the_positions_before(
    stored: Stored, connection: duckdb.DuckDBPyConnection
) -> None:
    wrong = """select count(*), count(*) filter (where i.item_id <> l.target or x.split <> l.split)
        from labels l join interactions x on x.domain = l.domain and x.user_id = l.user_id
            and x.position = l.position + 1
        join items i on i.domain = x.domain and i.item = x.item"""
    total = sum(corpus.n_positions for corpus in stored.corpora.values())
    assert rows(connection, wrong) == [(2 * total, 0)]
    times = "select min(timestamp - position), max(timestamp - position) from interactions"
    assert rows(connection, times) == [(4, 4)]


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("domain", DOMAINS)
def test_labels_are_those_written(
    stored: Stored, connection: duckdb.DuckDBPyConnection, teacher: str, domain: str
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
    assert [row[0] for row in long] == list(range(1, K + 1)) * sum(map(len, blocks))
    assert [row[1] for row in long] == codes.tolist()
    assert [row[2] for row in long] == np.concatenate([block.logprobs.ravel() for block in blocks]).tolist()
    assert [row[3] for row in long] == [titles[code] for code in codes]


def test_files_that_no_manifest_names_are_not_read(stored: Stored, connection: duckdb.DuckDBPyConnection) -> None:
    total = sum(corpus.n_positions for corpus in stored.corpora.values())
    assert rows(connection, "select count(*) from labels") == [(2 * total,)]


def test_metrics_of_teachers_equal_those_computed_from_the_arrays(
    stored: Stored, connection: duckdb.DuckDBPyConnection
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


def test_runs_metrics_and_ranks_are_those_stored(stored: Stored, connection: duckdb.DuckDBPyConnection) -> None:
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
    stored: Stored, connection: duckdb.DuckDBPyConnection
) -> None:
    query = "select sum(logprob) from label_items where teacher = 'rec former' and domain = 'tools'"
    corpus = stored.corpora["tools"]
    everything = scans(connection, query)
    assert everything == sorted([(1, N_ITEMS), (2, corpus.n_positions)])
    tested = scans(connection, query + " and split = 'test'")
    assert tested == sorted([(1, N_ITEMS), (2, corpus.n_users)])


def test_filter_on_a_run_reads_only_its_file(stored: Stored, connection: duckdb.DuckDBPyConnection) -> None:
    run = stored.runs[0]
    query = f"select avg(rank) from ranks where run = '{run.path.name}'"
    assert scans(connection, query) == [(1, 2 * stored.corpora["tools"].n_users)]


def attacks(stored: Stored, outside: Path) -> dict[str, str]:
    artifact = stored.labels[0].artifact
    shard = str(artifact.path / "part-00000.parquet").replace("'", "''")
    inside = f"ckd://labels/{artifact.key[:16]}/part-00000.parquet"
    folder = str(artifact.path).replace("'", "''")
    link = str(outside).replace("'", "''")
    overwrite = f"copy (select 1 as a) to '{inside}' (format parquet, use_tmp_file false)"
    overwrite_local = f"copy (select 1 as a) to '{shard}' (format parquet, use_tmp_file false)"
    serialized = "with x as (" + overwrite.replace("'", "''") + ") select * from x"
    return {
        "copy": f"copy (select 1) to '{shard}'",
        "copy without temporary file": overwrite_local,
        "copy to a virtual name": overwrite,
        "copy in explain analyze": f"explain analyze {overwrite}",
        "copy in explain with options": f"explain (analyze) {overwrite}",
        "copy in explain after a comment": f"/* a */ explain /* b */ analyze -- c\n {overwrite}",
        "copy in prepare": f"prepare p as {overwrite}",
        "execute": "execute p",
        "copy in with": f"with x as ({overwrite}) select * from x",
        "copy in with, local": f"with x as ({overwrite_local}) select * from x",
        "copy in with in explain analyze": f"explain analyze with x as ({overwrite}) select 1",
        "copy in with in a subquery": f"select (with x as ({overwrite}) select count(*) from x)",
        "copy in with in describe": f"describe with x as ({overwrite}) select * from x",
        "copy in serialized json": f"from json_execute_serialized_sql(json_serialize_sql('{serialized}'))",
        "copy in query()": f"from query('{serialized}')",
        "delete in with": "with x as (delete from runs returning *) select * from x",
        "insert in with": "with x as (insert into runs select * from runs returning *) select * from x",
        "insert": "insert into runs select * from runs",
        "delete": "delete from runs",
        "update": "update runs set seed = 2",
        "attach": "attach '/tmp/x.db'",
        "attach read-only": f"attach '{shard}' (read_only)",
        "export": "export database '/tmp/x'",
        "import": "import database '/tmp/x'",
        "read_csv": "select * from read_csv('/etc/passwd')",
        "read_text": "select * from read_text('/etc/passwd')",
        "read_blob": "select * from read_blob('/etc/passwd')",
        "read_json": "select * from read_json('/etc/passwd')",
        "file as table": "select * from '/etc/passwd'",
        "sniff_csv": "select * from sniff_csv('/etc/passwd')",
        "glob": "select * from glob('/etc/*')",
        "read_parquet of a shard": f"select * from read_parquet('{shard}')",
        "shard as table": f"select * from '{shard}'",
        "symlink inside the store": f"select * from '{link}'",
        "read_parquet of the symlink": f"select * from read_parquet('{link}')",
        "parquet_metadata": f"select * from parquet_metadata('{shard}')",
        "query_table": "select * from query_table('/etc/passwd')",
        "subquery": "select (select count(*) from read_text('/etc/passwd'))",
        "install": "install httpfs",
        "load": "load httpfs",
        "remote file": "select * from 'https://example.com/x.parquet'",
        "set": "set enable_external_access = true",
        "reset": "reset lock_configuration",
        "pragma": "pragma enable_profiling",
        "profiling to a file": "select * from enable_profiling(save_location = '/tmp/x.json')",
        "logging to a file": "call enable_logging(storage = 'file', storage_path = '/tmp/x')",
        "create table": "create table x as select 1",
        "create macro": "create macro f() as 1",
        "drop": "drop view labels",
        "two statements": "select 1; drop view labels",
        "explain and another": "explain select 1; drop view labels",
        "getenv": "select getenv('HOME')",
        "python variable": "select * from secret_table",
        "checkpoint": "from force_checkpoint()",
        "begin": "begin",
        "detach": "detach memory",
        "use": "use memory",
        "nothing": " ; ",
        "copy from": f"copy runs from '{shard}'",
        "copy of a database": "copy from database memory to other",
        "copy in a subquery's with": f"select * from (with x as ({overwrite}) select * from x)",
        "copy in with in summarize": f"summarize with x as ({overwrite}) select * from x",
        "copy in recursive with": f"with recursive x as ({overwrite}) select * from x",
        "copy after a comment with a semicolon": f"select 1 /* ; */; {overwrite} -- ;",
        "copy in execute immediate": f"execute immediate '{overwrite.replace(chr(39), chr(39) * 2)}'",
        "prepare and execute": f"prepare p as {overwrite}; execute p",
        "call of a table function": "call read_text('/etc/passwd')",
        "read_ndjson_objects": "select * from read_ndjson_objects('/etc/passwd')",
        "read_duckdb": "select * from read_duckdb('/tmp/x.db')",
        "read_text of the manifest": f"select * from read_text('{folder}/manifest.json')",
        "read_blob of a virtual name": f"select * from read_blob('{inside}')",
        "file in lateral": "select * from runs, lateral (select * from read_text('/etc/passwd'))",
        "file in pivot": "pivot '/etc/passwd' on column0 in ('root')",
        "file in describe": "describe select * from '/etc/passwd'",
        "file in summarize": "summarize '/etc/passwd'",
        "path up from a virtual name": f"select * from 'ckd://labels/{artifact.key[:16]}/../../../secret.parquet'",
        "path up from the store": f"select * from '{folder}/../../../../../x.parquet'",
        "parquet of another scheme": f"select * from 'file://{link}'",
        "remote bucket": "select * from 's3://bucket/x.parquet'",
        "remote read_csv": "select * from read_csv('http://127.0.0.1:9/x.csv')",
        "install from a url": "install spatial from 'http://127.0.0.1:9'",
        "force install": "force install httpfs",
        "load of a path": f"load '{link}'",
        "create secret": "create secret s (type s3, key_id 'a', secret 'b')",
        "secrets": "from duckdb_secrets()",
        "which_secret": "from which_secret('s3://bucket', 's3')",
        "duckdb_settings": "from duckdb_settings()",
        "set variable": "set variable a = (select content from read_text('/etc/passwd'))",
        "search path": "set search_path = 'main'",
        "pragma of a file": "pragma import_database('/tmp/x')",
        "create table macro": "create macro f(p) as table select * from read_text(p)",
        "create temporary macro": "create temp macro f() as 1",
        "create or replace view": "create or replace view labels as select 1",
        "create temporary view": "create temp view x as select 1",
        "create schema": "create schema x",
        "create type": "create type x as enum ('a')",
        "create sequence": "create sequence x",
        "create index": "create index x on runs (run)",
        "alter": "alter table runs rename to x",
        "truncate": "truncate runs",
        "merge": "merge into runs using runs r on true when matched then delete",
        "comment": "comment on view labels is 'x'",
        "vacuum": "vacuum",
        "external resource": "from register_external_resource('x')",
        "serialized json in a subquery": "select (from json_execute_serialized_sql('{}'))",
        "query_table of a list": "from query_table(['/etc/passwd'])",
    }


POINTERS = {
    "arrow_scan": "from arrow_scan(1, 2, 3)",
    "arrow_scan in a subquery": "select (select count(*) from arrow_scan_dumb(1, 2, 3))",
    "pandas_scan": "from pandas_scan(1)",
    "python function": "from python_map_function(1)",
}
"""Table functions that follow an address in memory: never to be tried on a bare connection."""


@pytest.fixture(scope="module")
def link_outside(stored: Stored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    secret = tmp_path_factory.mktemp("outside") / "secret.parquet"
    pq.write_table(pa.table({"a": [1]}), secret)
    link = stored.store.root / "labels" / "link.parquet"
    link.symlink_to(secret)
    return link


def test_attacks_are_refused_in_one_line_and_leave_every_byte(
    stored: Stored, connection: duckdb.DuckDBPyConnection, link_outside: Path
) -> None:
    secret_table = pa.table({"a": [1]})  # noqa: F841  # what DuckDB would find by its name
    before = stored.digests()
    tried = attacks(stored, link_outside) | POINTERS
    assert len({*tried.values()}) == len(tried) > 100
    for name, attack in tried.items():
        with pytest.raises(UserError) as refusal:
            rows(connection, attack)
        assert "\n" not in str(refusal.value), name
        assert stored.digests() == before, name
    assert rows(connection, "select count(*) from runs") == [(2,)]


def test_the_connection_alone_lets_no_query_write_or_read_elsewhere(stored: Stored, link_outside: Path) -> None:
    """Were the guard to miss something, the file system has to hold."""
    secret_table = pa.table({"a": [1]})  # noqa: F841
    before = stored.digests()
    readers = (
        "read",
        "file",
        "sniff",
        "glob",
        "shard",
        "symlink",
        "parquet",
        "query_table",
        "subquery",
        "remote",
        "path",
        "call",
        "install",
        "force install",
        "load",
        "attach",
        "export",
        "import",
    )
    for name, attack in attacks(stored, link_outside).items():
        refused = False
        with open_views(stored.contents, threads=1) as connection:
            try:
                connection.execute(attack)
            except (duckdb.Error, OSError):
                refused = True
        assert refused or not name.startswith((*readers, "python variable", "set", "reset", "pragma")), name
        assert stored.digests() == before, name


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


def test_a_query_too_big_for_memory_is_a_user_error(stored: Stored) -> None:
    small = open_views(stored.contents, memory_limit="20MB", threads=1)
    with small as connection, pytest.raises(UserError, match=r"(?i)memory"):
        rows(connection, "select list(md5(i::varchar)) from range(3000000) t(i)")


def test_a_limit_of_memory_that_is_none_is_a_user_error(stored: Stored) -> None:
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


def test_interrupt_stops_a_running_query(connection: duckdb.DuckDBPyConnection) -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        rows(connection, ENDLESS)
    assert rows(connection, "select 1") == [(1,)]


def test_a_flipped_bit_is_reported_and_not_answered(tmp_path: Path) -> None:
    stored = Stored(tmp_path, (False, False))
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
def test_no_view_gives_a_number_from_a_file_with_a_flipped_bit(tmp_path: Path, place: float) -> None:
    stored = Stored(tmp_path, (False, False))
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


def test_a_flipped_bit_in_a_file_that_views_open_is_reported(tmp_path: Path) -> None:
    stored = Stored(tmp_path, (False, False))
    path = stored.artifacts["tools"].path / "items.parquet"
    damaged = bytearray(path.read_bytes())
    damaged[200] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DamagedArtifact, match=r"items\.parquet is damaged"):
        open_views(stored.contents)


def test_threads_that_share_a_file_do_not_move_each_other(stored: Stored) -> None:
    whole = (stored.runs[0].path / "ranks.parquet").read_bytes()
    stored_file = StoredFile(stored.runs[0], "ranks.parquet")
    files = ReadOnlyFiles()
    file = files.open(files.add(stored_file), "rb")
    file.seek(10)
    with ThreadPoolExecutor(1) as other:
        other.submit(file.seek, 200).result()
        assert file.read(2) == whole[10:12]
        assert other.submit(file.read, len(whole)).result() == whole[200:]


def test_many_threads_read_what_one_reads(stored: Stored) -> None:
    query = "select bit_xor(hash(columns(*))) from label_items"
    with open_views(stored.contents, threads=1) as connection:
        expected = rows(connection, query)
    with open_views(stored.contents, threads=8) as connection:
        assert [rows(connection, query) for _ in range(20)] == [expected] * 20


def test_two_label_artifacts_of_one_teacher_and_domain_are_a_mistake(stored: Stored) -> None:
    with pytest.raises(ValueError, match="twice"):
        Contents(labels=[stored.labels[0], stored.labels[0]])
