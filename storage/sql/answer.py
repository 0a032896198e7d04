"""Asking: a checked question in, batches of rows out; Ctrl-C and a limit of time stop it."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import TypeVar

import duckdb
import pyarrow as pa

from ckd.storage.errors import UserError
from ckd.storage.sql.guard import checked, user_error

BATCH_ROWS = 8_192
PATIENCE = 0.5
"""Seconds that a question has to stop when it is told to, before ``abandon`` is called."""

Stopped = KeyboardInterrupt | UserError
Abandon = Callable[[Stopped], None]

T = TypeVar("T")


class Answer:
    """The rows of one question, computed while they are read. Close it by leaving its context."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, query: str, seconds: float | None, abandon: Abandon | None
    ) -> None:
        self._connection = connection
        self._seconds = self._left = seconds
        self._abandon = abandon
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="ckd-sql")
        try:
            self._reader = self._run(lambda: connection.sql(checked(connection, query)).to_arrow_reader(BATCH_ROWS))
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
            UserError: the query fails on the way (a cast, a division, memory, time).
        """
        while (batch := self._run(lambda: next(self._reader, None))) is not None:
            yield batch

    def _run(self, work: Callable[[], T]) -> T:
        # DuckDB does not look at signals while it computes, so it computes in a thread and this one listens.
        started = time.monotonic()
        future = self._worker.submit(work)
        try:
            wait([future], self._left)
            if not future.done():
                raise self._stop(future, self._too_long())
            return future.result()
        except KeyboardInterrupt as interrupt:
            raise self._stop(future, interrupt) from None
        except (duckdb.Error, pa.ArrowException, OSError, MemoryError) as error:
            raise user_error(error) from None
        finally:
            if self._left is not None:
                self._left = max(0.0, self._left - (time.monotonic() - started))

    def _stop(self, future: Future[T], reason: Stopped) -> Stopped:
        """Stop the work; return why."""
        told = time.monotonic()
        while not future.done():
            self._connection.interrupt()
            wait([future], timeout=0.1)
            if self._abandon is not None and time.monotonic() - told > PATIENCE and not future.done():
                self._abandon(reason)
        return reason

    def _too_long(self) -> UserError:
        return UserError(
            f"the question was stopped after {self._seconds:g} s; ask for less at a time, or give it more (--timeout)"
        )

    def __enter__(self) -> "Answer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.shutdown()
        self._reader.close()  # DuckDB refuses the next query while a half-read one is open


def ask(
    connection: duckdb.DuckDBPyConnection, query: str, seconds: float | None = None, abandon: Abandon | None = None
) -> Answer:
    """Check what a user typed and start to answer it.

    Args:
        connection: from :func:`ckd.storage.sql.open_views`.
        query: one SELECT, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN statement.
        seconds: what it may compute, all batches together; the time between them does not count.
        abandon: called with the reason when a stopped question goes on: DuckDB asks whether it is to stop before each
            vector of rows only, and one call of ``range`` or ``repeat`` may fill gigabytes in between. Without it the
            end is waited for.

    Raises:
        UserError: it is something else, DuckDB rejects it, or it takes too long.
    """
    return Answer(connection, query, seconds, abandon)
