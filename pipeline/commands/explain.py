"""`ckd distill --explain`: the options, and what they keep apart from those of the training."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

import click

from ckd.pipeline.commands import given

if TYPE_CHECKING:
    from ckd.pipeline.commands import Request
    from ckd.pipeline.config.models import Configuration

FORMATS = ("table", "json")
_OPTIONS = ("user", "positions", "items", "form")
_COMMON = ("file", "overrides", "explain", "student", "domain")


def explained(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--explain``, with which it explains instead of doing its work, and the options of that.

    The command's own ``--student`` and ``--domain`` say which one is explained, and where.
    """

    @click.option("--explain", is_flag=True, help="Train nothing; show what a few users' students are taught, and why.")
    @click.option("--user", multiple=True, metavar="ID", help="Explain this user; may be given several times.")
    @click.option(
        "--positions",
        type=click.IntRange(min=1),
        default=3,
        show_default=True,
        metavar="N",
        help="Explain the last N training positions of a user.",
    )
    @click.option(
        "--items",
        type=click.IntRange(min=0),
        default=3,
        show_default=True,
        metavar="N",
        help="Show the N best items of each teacher.",
    )
    @click.option(
        "--format",
        "form",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="Of the explanation; json holds all digits.",
    )
    @functools.wraps(function)
    def command(request: Request, explain: bool, **options: Any) -> Any:
        own = {name: options.pop(name) for name in _OPTIONS}
        refuse_mixed(explain)
        if not explain:
            return function(request, **options)
        students = options["student"]
        if len(students) > 1:
            raise click.UsageError("--explain shows what one student is taught; name it with one --student")
        student = students[0] if students else None
        return _show(request.load(), domain=options["domain"], student=student, **own)

    return command


def refuse_mixed(explain: bool) -> None:
    """Refuse options of the training beside ``--explain``, and those of the explanation without it.

    Raises:
        click.UsageError: one was given.
    """
    for parameter in given():
        if parameter.name not in _COMMON and explain != (parameter.name in _OPTIONS):
            mend = "says how to train; leave it out beside" if explain else "says what to explain; add"
            raise click.UsageError(f"{parameter.opts[0]} {mend} --explain")


def _show(
    configuration: Configuration,
    domain: tuple[str, ...],
    student: str | None,
    user: tuple[str, ...],
    positions: int,
    items: int,
    form: str,
) -> None:
    from ckd.pipeline.progress import console
    from ckd.pipeline.report.explain import print_explanations, write_json
    from ckd.pipeline.tasks.explain import explanations

    # An argument that is not UTF-8 can't be an identifier; it can still be named in the answer.
    users = [name.encode(errors="replace").decode() for name in user]
    name, found = explanations(configuration, student, domain, users, positions, items)
    if isinstance(sys.stdout, TextIOWrapper):
        # A title that the terminal's encoding lacks is shown escaped; it must not end the output half-way.
        sys.stdout.reconfigure(errors="backslashreplace")
    if form == "json":
        write_json(name, found, sys.stdout)
    else:
        print_explanations(console, name, found, configuration.distill)
