"""The subcommands, one module each, and what they share: which configuration to read.

Nothing heavy is imported here, nor by the modules' own top levels: `ckd --help` must answer at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from ckd.pipeline.config.models import Configuration

DEFAULT_FILE = Path("pipeline.yaml")


@dataclass(frozen=True)
class Request:
    """Which configuration the command line asks for: the file if it names one, the ``KEY=VALUE`` overrides in order."""

    named: Path | None = None
    overrides: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """The file to read."""
        return self.named or DEFAULT_FILE

    def also(self, file: Path | None, overrides: tuple[str, ...]) -> Request:
        """Return the request with another file, if one is given, and further overrides."""
        return Request(file or self.named, self.overrides + overrides)

    def load(self) -> Configuration:
        """Return the configuration.

        Raises:
            UserError: something in the file or an override is wrong; one line per problem.
        """
        from ckd.pipeline.config.load import load_configuration

        return load_configuration(self.file, self.overrides)


def requested(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options ``-c`` and ``--set``, and as first argument the :class:`Request` they make.

    The options may stand before the subcommand, after it, or on both sides: the file named last counts, and
    of the overrides all do.
    """

    @click.option(
        "-c",
        "--config",
        "file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"Configuration to read.  [default: {DEFAULT_FILE}]",
    )
    @click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override one key, e.g. distill.alpha=0.3; may be given several times.",
    )
    @click.pass_context
    @functools.wraps(function)
    def command(context: click.Context, /, file: Path | None, overrides: tuple[str, ...], **options: Any) -> Any:
        outer = context.find_object(Request) or Request()
        context.obj = outer.also(file, overrides)
        return function(context.obj, **options)

    return command


def configured(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options ``-c`` and ``--set``, and as first argument the loaded ``Configuration``."""

    @requested
    @functools.wraps(function)
    def command(request: Request, **options: Any) -> Any:
        return function(request.load(), **options)

    return command


def given() -> list[click.Parameter]:
    """Return the options of the running command that its command line gave, in their order of declaration."""
    context = click.get_current_context()
    return [
        parameter
        for parameter in context.command.params
        if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    ]


def of_a_run(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument RUN and the options ``-c``, ``--set`` and ``--store``.

    Its first argument is then the :class:`ckd.pipeline.stored.Place` where runs are looked for.
    """

    @click.argument("run", metavar="RUN")
    @click.option(
        "--store",
        metavar="PLACE",
        help="Store that holds the run; without it, that of the configuration.",
    )
    @requested
    @functools.wraps(function)
    def command(request: Request, store: str | None, **options: Any) -> Any:
        from ckd.pipeline.stored import place_of

        return function(place_of(request, store), **options)

    return command
