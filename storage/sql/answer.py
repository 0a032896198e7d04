"""Asking: a checked question in, batches of rows out, and Ctrl-C stops it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from types import TracebackType
from typing import TypeVar

import duckdb
import pyarrow as pa

from ckd.storage.sql.guard import checked, user_error

BATCH_ROWS = 8_192

T = TypeVar("T")


class Answer:
    """The rows of one question, computed while they are read. Close it by leaving its context."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, query: str) -> None:
        self._connection = connection
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="ckd-sql")
        try:
            self._reader = self._run(lambda: connection.sql(query).to_arrow_reader(BATCH_ROWS))
        except BaseException:
            self._worker.shutdown()
            raise

    @property
    def schema(self) -> pa.Schema:
        """Names and Arrow types of the columns; two columns may have the same name."""
        return self._reader.schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows, once.

        Raises:
            UserError: the query fails on the way (a cast, a division, memory).
        """
        while (batch := self._run(lambda: next(self._reader, None))) is not None:
            yield batch

    def _run(self, work: Callable[[], T]) -> T:
        # DuckDB does not look at signals while it computes, so it computes in a thread and this one listens.
        future = self._worker.submit(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            while not future.done():
                self._connection.interrupt()
                wait([future], timeout=0.1)
            raise
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise user_error(error) from None

    def __enter__(self) -> "Answer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.shutdown()
        self._reader.close()  # DuckDB refuses the next query while a half-read one is open


def ask(connection: duckdb.DuckDBPyConnection, query: str) -> Answer:
    """Check what a user typed and start to answer it.

    Args:
        connection: from :func:`ckd.storage.sql.open_views`.
        query: one SELECT, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN statement.

    Raises:
        UserError: it is something else, or DuckDB rejects it.
    """
    return Answer(connection, checked(connection, query))
