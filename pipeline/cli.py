"""The command `ckd`: finds the subcommand, and turns what goes wrong into one line and an exit code."""

import importlib
import os
import sys
import time
from collections.abc import Sequence

import click

from ckd.pipeline.commands import Request, requested
from ckd.pipeline.config.problems import hint
from ckd.pipeline.mishaps import GO_ON, INTERRUPTED, USER_ERROR, explained, interrupts, unreachable
from ckd.storage.errors import UserError

COMMANDS = {
    "prepare": ("ckd.pipeline.commands.prepare", "Turn raw files into corpora and item text vectors."),
    "pretrain": ("ckd.pipeline.commands.pretrain", "Train or adapt the teachers, once."),
    "precompute": ("ckd.pipeline.commands.precompute", "Write the teachers' soft labels into the store."),
    "distill": ("ckd.pipeline.commands.distill", "Train students from the soft labels."),
    "recommend": ("ckd.pipeline.commands.recommend", "Write the best items of users, from a trained student."),
    "export": ("ckd.pipeline.commands.export", "Write a trained student as ONNX, safetensors or a FAISS index."),
    "runs": ("ckd.pipeline.commands.runs", "List the trained students, best on validation first."),
    "status": ("ckd.pipeline.commands.status", "Show what is in the store and what is still to do."),
    "sql": ("ckd.pipeline.commands.sql", "Ask the store a question in SQL."),
    "verify": ("ckd.pipeline.commands.verify", "Check every byte of the store; mend what is damaged."),
    "gc": ("ckd.pipeline.commands.gc", "List, and remove, what nothing refers to any more."),
    "du": ("ckd.pipeline.commands.du", "Show what takes the room in the store."),
    "config": ("ckd.pipeline.commands.config", "Print the effective configuration, or list all its keys."),
}
"""Module and one line of help by subcommand, so that `ckd --help` need not import them."""

_SILENCE = 30
"""Seconds that are left to the first process to say what went wrong."""


class LazyGroup(click.Group):
    """A group whose subcommands are imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which they are used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand, or return None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the subcommands' lines from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand; an unknown one is answered with the nearest known."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"unknown command {name!r}{hint(name, COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ckd", prog_name="ckd", message="%(prog)s %(version)s")
@requested
def cli(request: Request) -> None:
    """Distil pre-trained recommenders into small ones: label once, then train students from the labels.

    The steps, in order: prepare, pretrain, precompute, distill. Each takes up what is already in the store,
    and goes on where it was stopped.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: its own, 2 for a mistake of the user, 130 when interrupted."""
    with interrupts() as interrupted:
        try:
            return _answered(arguments)
        except Exception:
            if not interrupted():
                raise
            return _fail(GO_ON, INTERRUPTED)


def _answered(arguments: Sequence[str] | None) -> int:
    """Run the command line; what nobody at the terminal could mend is raised."""
    try:
        code = cli.main(args=arguments, prog_name="ckd", standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        return _fail(f"error: {error}")
    except click.ClickException as error:
        if _speaks():
            error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _fail(GO_ON, INTERRUPTED)
    except BrokenPipeError:
        # Whatever is still buffered has no reader; without this the interpreter complains about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        line = explained(error) if isinstance(error, OSError) else unreachable(error)
        if line is None:
            raise
        return _fail(f"error: {line}")
    return code if isinstance(code, int) else 0


def _fail(text: str, code: int = USER_ERROR) -> int:
    if _speaks():
        click.echo(text, err=True)
    return code


def _speaks() -> bool:
    """Return whether this is the first of the processes that torchrun started here, which speaks for all.

    The others come back later: torchrun ends all of them when one has ended, and that must not be the one that speaks.
    """
    if os.environ.get("LOCAL_RANK", "0") == "0":
        return True
    time.sleep(_SILENCE)
    return False
