"""`ckd sql`: questions about corpora, labels and runs."""

from __future__ import annotations

import math
import os
import re
import sys
import threading
from io import TextIOWrapper
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TextIO

import click

from ckd.pipeline.commands import configured
from ckd.pipeline.mishaps import GO_ON, INTERRUPTED, USER_ERROR
from ckd.storage.errors import UserError

if TYPE_CHECKING:
    from ckd.pipeline.config.models import Configuration
    from ckd.storage.sql import Contents

FORMATS = ("table", "csv", "json")
MEMORY = "80%"
SECONDS = 600.0
"""No question of the examples takes a minute on ten million labels; a product of two views would take for ever."""

_REST = 256 * 2**20
"""Bytes that the process takes beside the question: threads, modules, rows as text."""

_SIZE = re.compile(r"\d+(?:\.\d+)?\s*(?:[KMGT]i?B|%)", re.IGNORECASE)


def _size(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not _SIZE.fullmatch(value.strip()):
        raise click.BadParameter(f"{value!r} is no size; write for instance 500MB, 4GB or 80%", context, parameter)
    return value.strip()


def _number(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    if math.isnan(value):  # which is in every range
        raise click.BadParameter("nan is no number of seconds.")
    return value


@click.command(name="sql")
@click.argument("query", required=False)
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
@click.option(
    "--limit-rows",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="Rows that a table shows; CSV and JSON always hold all.",
)
@click.option(
    "--memory",
    callback=_size,
    default=MEMORY,
    show_default=True,
    metavar="SIZE",
    help="What the question may hold in memory, e.g. 4GB; one that needs more fails.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=threading.TIMEOUT_MAX),
    callback=_number,
    default=SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long the question may compute; then it is stopped.",
)
@configured
def command(
    configuration: Configuration, query: str | None, form: str, limit_rows: int, memory: str, timeout: float
) -> None:
    """Answer one SQL question about the store.

    QUERY is a SELECT (or DESCRIBE, SUMMARIZE, SHOW, EXPLAIN) in DuckDB's dialect, or - to read it from
    standard input. Without one, the views are listed with their columns, and a few questions to start from.

    Nothing can be written, and no file but those of the views can be read. Ctrl-C stops the question at once.
    """
    if query is None:
        click.echo(listing(), nl=False)
        return
    from ckd.pipeline.contents import sql_contents

    text = _standard_input() if query == "-" else query
    contents, missing = sql_contents(configuration)
    for line in missing:
        click.echo(line, err=True)
    if isinstance(sys.stdout, TextIOWrapper):
        # A title that the terminal's encoding lacks is shown escaped; it must not end the output half-way.
        sys.stdout.reconfigure(errors="backslashreplace")
    run_query(contents, text, form, sys.stdout, limit_rows, Limits(memory, timeout, alone=True))


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise UserError("the query on standard input is not UTF-8 text") from None


class Limits(NamedTuple):
    """What a question may take.

    Attributes:
        memory: as DuckDB writes it.
        seconds: of computing.
        alone: whether the process is there for this question only, so that its memory may be limited and it may be
            ended where the question cannot.
    """

    memory: str = MEMORY
    seconds: float | None = None
    alone: bool = False


def run_query(
    contents: Contents, query: str, form: str, stream: TextIO, limit_rows: int = 100, limits: Limits | None = None
) -> None:
    """Answer a question over some artifacts and write the rows as ``table``, ``csv`` or ``json``.

    Raises:
        UserError: the query is not one question, DuckDB rejects it, or it takes more than it may.
    """
    from ckd.pipeline import rows
    from ckd.pipeline.memory import hold_memory
    from ckd.storage.sql import ask, open_views
    from ckd.storage.sql.connection import memory_limit_of
    from ckd.storage.sql.guard import user_error

    limits = limits or Limits()
    with open_views(contents, limits.memory) as connection:
        if limits.alone:
            hold_memory(memory_limit_of(connection) + _REST)
        try:
            with ask(connection, query, limits.seconds, _leave if limits.alone else None) as answer:
                if form == "csv":
                    rows.write_csv(answer, stream)
                elif form == "json":
                    rows.write_json(answer, stream)
                else:
                    rows.print_table(answer, stream, limit_rows)
        except MemoryError as error:
            raise user_error(error) from None


def _leave(reason: KeyboardInterrupt | UserError) -> NoReturn:
    """End the process: the question can't be stopped, and has nothing open that could be harmed."""
    interrupted = isinstance(reason, KeyboardInterrupt)
    click.echo(f"\n{GO_ON}" if interrupted else f"error: {reason}", err=True)
    os._exit(INTERRUPTED if interrupted else USER_ERROR)


def listing() -> str:
    """Return the views, their columns with types and meanings, and the example questions."""
    from ckd.storage.sql import EXAMPLES, VIEWS

    lines = []
    for name, view in VIEWS.items():
        lines += [f"{name}: {view.description}"]
        name_width = max(map(len, view.columns))
        type_width = max(len(column.type) for column in view.columns.values())
        lines += [
            f"  {column:<{name_width}}  {kind:<{type_width}}  {meaning}"
            for column, (kind, meaning) in view.columns.items()
        ]
        lines.append("")
    lines += [
        "A user id or item id is a BIGINT where all are whole numbers, else a VARCHAR.",
        "",
        "Examples:",
    ]
    for question, query in EXAMPLES.items():
        lines += ["", question, query]
    return "\n".join(lines) + "\n"
