"""`ckd sql`: questions about corpora, labels and runs."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, TextIO

import click

from ckd.pipeline.commands import configured
from ckd.storage.errors import UserError

if TYPE_CHECKING:
    from ckd.pipeline.config.models import Configuration
    from ckd.storage.sql import Contents

FORMATS = ("table", "csv", "json")


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
@configured
def command(configuration: Configuration, query: str | None, form: str, limit_rows: int) -> None:
    """Answer one SQL question about the store.

    QUERY is a SELECT (or DESCRIBE, SUMMARIZE, SHOW, EXPLAIN) in DuckDB's dialect, or - to read it from
    standard input. Without one, the views are listed with their columns, and a few questions to start from.

    Nothing can be written, and no file but those of the views can be read.
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
    run_query(contents, text, form, sys.stdout, limit_rows)


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise UserError("the query on standard input is not UTF-8 text") from None


def run_query(contents: Contents, query: str, form: str, stream: TextIO, limit_rows: int = 100) -> None:
    """Answer a question over some artifacts and write the rows as ``table``, ``csv`` or ``json``.

    Raises:
        UserError: the query is not one question, or DuckDB rejects it.
    """
    from ckd.pipeline import rows
    from ckd.storage.sql import ask, open_views

    with open_views(contents) as connection, ask(connection, query) as answer:
        if form == "csv":
            rows.write_csv(answer, stream)
        elif form == "json":
            rows.write_json(answer, stream)
        else:
            rows.print_table(answer, stream, limit_rows)


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
