"""A DuckDB connection that shows the views and can reach nothing else."""

from collections.abc import Iterable
from itertools import groupby

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ckd.storage.artifact import Artifact
from ckd.storage.corpus import ITEMS, SEQUENCES
from ckd.storage.errors import DamagedArtifact
from ckd.storage.labels import part_names
from ckd.storage.runs import METRICS, RANKS, domains_of
from ckd.storage.sql import views
from ckd.storage.sql.contents import Contents
from ckd.storage.sql.files import ReadOnlyFiles, StoredFile
from ckd.storage.sql.guard import user_error
from ckd.storage.sql.schema import ITEM_ID, USER_ID, VIEWS
from ckd.storage.sql.views import Branch

_CLOSED = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    # Spilling would need the local file system, which is off: a query too big for memory fails.
    "temp_directory": "",
}


def open_views(contents: Contents, memory_limit: str = "80%", threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """Return a connection with the views of ``VIEWS`` over some artifacts.

    It reads the artifacts' files and no others, writes nothing, and its settings are locked. Even so, run
    what users type through :func:`ckd.storage.sql.ask`, which also refuses whatever is not a question.

    Args:
        contents: the artifacts to show.
        memory_limit: what queries may hold in memory, as DuckDB writes it (``4GB``, ``80%``).
        threads: threads per query; by default as many as there are cores.

    Raises:
        DamagedArtifact: a file that had to be opened does not hold what was written.
        UserError: the limit of memory is none, or too small for the views themselves.
    """
    sources = _Sources()
    statements = _view_statements(contents, sources)
    settings: dict[str, str | bool | int | float | list[str]] = {**_CLOSED, "memory_limit": memory_limit}
    if threads is not None:
        settings["threads"] = threads
    try:
        connection = duckdb.connect(":memory:", config=settings)
    except duckdb.Error as error:
        raise user_error(error) from None
    connection.register_filesystem(sources.files)
    connection.execute(f"set allowed_paths = {views.listed(sources.files.names)}")
    connection.execute("set enable_external_access = false")
    connection.execute("set disabled_filesystems = 'LocalFileSystem'")
    # It goes to standard output, between the rows, as soon as a question takes two seconds.
    connection.execute("set enable_progress_bar = false")
    try:
        _create_runs(connection, contents)
        for name, statement in statements.items():
            connection.execute(f"create view {name} as {statement}")
    except duckdb.Error as error:
        connection.close()
        if KeyboardInterrupt.__name__ in str(error):  # it came while DuckDB called our file system
            raise KeyboardInterrupt from None
        raise user_error(error) from None
    connection.execute("set lock_configuration = true")
    return connection


def memory_limit_of(connection: duckdb.DuckDBPyConnection) -> int:
    """Return how many bytes the queries of a connection may hold."""
    ((text,),) = connection.execute("select current_setting('memory_limit')").fetchall()
    number, unit = text.split()
    return int(float(number) * 1024 ** ("bytes", "KiB", "MiB", "GiB", "TiB").index(unit))


class _Sources:
    """Collects the files that the views read, under the names by which they read them."""

    def __init__(self) -> None:
        self.files = ReadOnlyFiles()

    def add(self, artifact: Artifact, names: Iterable[str]) -> tuple[str, ...]:
        held = artifact.files
        return tuple(self.files.add(StoredFile(artifact, name)) for name in names if name in held)

    def schema(self, file: str) -> pa.Schema:
        # First compared: of a damaged footer, a reader may say anything, or nothing.
        path = self.files.verified(file)
        try:
            return pq.read_schema(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise DamagedArtifact(f"{path} cannot be read: {error}") from error


def _view_statements(contents: Contents, sources: _Sources) -> dict[str, str]:
    """Return the SQL of every view but ``runs``, in an order in which they can be made."""
    identifiers: dict[str, set[pa.DataType]] = {USER_ID: set(), ITEM_ID: set()}

    def branch(
        files: tuple[str, ...],
        constants: dict[str, str | None],
        expressions: dict[str, str] | None = None,
    ) -> Branch:
        schema = sources.schema(files[0])
        for name, kind in (("user_id", USER_ID), ("item_id", ITEM_ID), ("target", ITEM_ID)):
            if name in schema.names:
                identifiers[kind].add(schema.field(name).type)
        return Branch(files, frozenset(schema.names), constants, expressions or {})

    corpora = contents.corpora.items()
    items = [branch(sources.add(corpus, [ITEMS]), {"domain": name}) for name, corpus in corpora]
    sequences = [
        branch(sources.add(corpus, [SEQUENCES]), {"domain": name}, {"length": "len(items)"}) for name, corpus in corpora
    ]
    labels = [
        branch(files, {"teacher": source.teacher, "domain": source.domain})
        for source in contents.labels
        if (files := sources.add(source.artifact, part_names(source.artifact)))
    ]
    agreements = [
        branch(
            sources.add(artifact, [views.AGREEMENT]),
            {"domain": domain, "teacher": teacher, "other": other},
            {"closer": views.closer(views.quoted(teacher), views.quoted(other))},
        )
        for domain, teacher, other, artifact in contents.agreements
    ]
    of_run = {"run": views.RUN_OF_FILE}
    ranks = [branch(files, known, of_run) for known, files in _run_files(contents, sources, RANKS)]
    students = [
        branch(files, {"owner": "student", **known}, of_run) for known, files in _run_files(contents, sources, METRICS)
    ]

    types = {kind: _identifier_type(found) for kind, found in identifiers.items()}
    return {
        "items": views.union("items", items, types),
        "sequences": views.union("sequences", sequences, types),
        "interactions": views.INTERACTIONS,
        "labels": views.union("labels", labels, types),
        "label_items": views.LABEL_ITEMS,
        "agreement": views.agreement(labels, agreements, types),
        "metrics": views.metrics(views.union("metrics", students, types)),
        "ranks": views.union("ranks", ranks, types),
    }


def _run_files(
    contents: Contents, sources: _Sources, name: str
) -> Iterable[tuple[dict[str, str | None], tuple[str, ...]]]:
    """Yield one file of each run, those of equal columns together, and the columns that they lack.

    Identifiers may be of another type in another run, and a run of the first format is of one domain, which its file
    does not repeat.
    """
    found = []
    for run in contents.runs:
        for file in sources.add(run, [name]):
            schema = sources.schema(file)
            user = str(schema.field("user_id").type) if "user_id" in schema.names else ""
            found.append(("" if "domain" in schema.names else domains_of(run)[0], user, file))
    for (domain, _), rows in groupby(sorted(found), key=lambda row: row[:2]):
        yield ({"domain": domain} if domain else {}), tuple(file for _, _, file in rows)


def _identifier_type(found: set[pa.DataType]) -> str:
    return "BIGINT" if found and all(pa.types.is_integer(kind) for kind in found) else "VARCHAR"


def _create_runs(connection: duckdb.DuckDBPyConnection, contents: Contents) -> None:
    connection.register("rows_of_runs", views.runs_table(contents.runs))
    values = ", ".join(f"{name}::{column.type} as {name}" for name, column in VIEWS["runs"].columns.items())
    connection.execute(f"create table runs as select {values} from rows_of_runs")
    connection.unregister("rows_of_runs")
