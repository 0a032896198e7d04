"""Whatever is asked, nothing is written and nothing beside the views is read."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from ckd.storage.errors import UserError
from ckd.storage.sql import ask, open_views


def attacks(stored: Any, outside: Path) -> dict[str, str]:
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


def test_attacks_are_refused_in_one_line_and_leave_every_byte(
    stored: Any, connection: duckdb.DuckDBPyConnection, link_outside: Path
) -> None:
    secret_table = pa.table({"a": [1]})  # noqa: F841  # what DuckDB would find by its name
    before = stored.digests()
    tried = attacks(stored, link_outside) | POINTERS
    assert len({*tried.values()}) == len(tried) > 100
    for name, attack in tried.items():
        with pytest.raises(UserError) as refusal, ask(connection, attack) as answer:
            list(answer.batches())
        assert "\n" not in str(refusal.value), name
        assert stored.digests() == before, name
    with ask(connection, "select count(*) as n from runs") as answer:
        assert [row for batch in answer.batches() for row in batch.to_pylist()] == [{"n": 2}]


def test_the_connection_alone_lets_no_query_write_or_read_elsewhere(stored: Any, link_outside: Path) -> None:
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
