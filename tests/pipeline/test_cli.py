"""The command line: where options may stand, what help imports, and what is said when something goes wrong."""

import errno
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ckd.pipeline import cli
from ckd.pipeline.commands import Request, configured, requested
from ckd.pipeline.config.models import Configuration
from ckd.pipeline.progress import epoch_lines
from ckd.storage.errors import UserError

HEAVY = ("torch", "numpy", "pyarrow", "duckdb", "pydantic", "yaml", "rich", "transformers")
PIPELINE = "domains:\n  office:\n    path: data/office\n"


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a configuration."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE)
    return path


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """A subcommand `probe` that does what the test puts first into the list; what it got is appended."""
    calls: list[object] = []

    @click.command()
    @configured
    def command(configuration: Configuration) -> None:
        calls.append(configuration)
        if isinstance(calls[0], BaseException):
            raise calls[0]
        if callable(calls[0]):
            calls[0]()

    module = type(sys)("probe_command")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "probe_command", module)
    monkeypatch.setitem(cli.COMMANDS, "probe", ("probe_command", "Probe."))
    yield calls


def ckd(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    code = "import sys; from ckd.pipeline.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


# --- help


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ckd.pipeline.cli import main; code = main(['--help']); "
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_help_names_every_subcommand_even_one_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, "later", ("ckd.pipeline.commands.later", "Comes later."))
    shown = CliRunner().invoke(cli.cli, ["--help"])
    assert shown.exit_code == 0
    for name, (_, line) in cli.COMMANDS.items():
        assert f"  {name} " in shown.output
        assert line.split()[0] in shown.output


def test_version() -> None:
    shown = CliRunner().invoke(cli.cli, ["--version"])
    assert shown.output.startswith("ckd ")
    assert shown.exit_code == 0


# --- options on either side


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "f", "--set", "a=1", "--set", "b=2", "show"],
        ["show", "-c", "f", "--set", "a=1", "--set", "b=2"],
        ["--set", "a=1", "show", "--config", "f", "--set", "b=2"],
        ["-c", "g", "--set", "a=1", "show", "--set", "b=2", "-c", "f"],
    ],
)
def test_options_stand_before_or_after_the_subcommand(arguments: list[str]) -> None:
    got: list[Request] = []

    @click.group()
    @requested
    def group(request: Request) -> None:
        pass

    @group.command()
    @requested
    def show(request: Request) -> None:
        got.append(request)

    assert CliRunner().invoke(group, arguments).exit_code == 0
    assert got == [Request(Path("f"), ("a=1", "b=2"))]


def test_the_configuration_is_loaded_for_the_subcommand(pipeline: Path, probe: list[object]) -> None:
    probe.append(None)
    assert cli.main(["--set", "seed=1", "probe", "--set", "distill.temperature=2"]) == 0
    configuration = probe[1]
    assert isinstance(configuration, Configuration)
    assert (configuration.seed, configuration.distill.temperature) == (1, 2.0)


def test_a_subcommands_own_options_stay_its_own(pipeline: Path) -> None:
    @click.command()
    @click.option("--above")
    @configured
    @click.option("--below")
    def command(configuration: Configuration, above: str, below: str) -> None:
        """What it does."""
        click.echo(f"{above} {below} {configuration.seed}")

    done = CliRunner().invoke(command, ["--above", "a", "--below", "b", "--set", "seed=3"])
    assert done.output == "a b 3\n"
    assert command.help == "What it does."


# --- ckd config


def test_config_prints_what_loads_back(pipeline: Path) -> None:
    first = CliRunner().invoke(cli.cli, ["config", "--set", "distill.alpha=0.25"])
    assert first.exit_code == 0
    assert "\n  alpha: 0.25\n" in first.output
    pipeline.with_name("again.yaml").write_text(first.output)
    assert CliRunner().invoke(cli.cli, ["-c", "again.yaml", "config"]).output == first.output


def test_the_list_of_keys_needs_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(cli.cli, ["config", "--keys"])
    assert shown.exit_code == 0
    assert shown.output.splitlines()[0].split() == ["key", "type", "default", "meaning"]


# --- what goes wrong


def test_a_users_mistake_is_a_line_and_code_2(pipeline: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pipeline.write_text(PIPELINE + "distill: {alpa: 1}\nseed: x\n")
    assert cli.main(["config"]) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err == (
        "error: pipeline.yaml:4: distill.alpa: unknown key; did you mean alpha?\n"
        "pipeline.yaml:5: seed: must be a whole number, not 'x'\n"
    )


def test_the_process_itself_ends_with_code_2(tmp_path: Path) -> None:
    done = ckd("config", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: pipeline.yaml: no such file; name the configuration with -c FILE\n"


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (UserError("mend this"), 2, "error: mend this"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again to go on"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/s/x"),
            2,
            "error: disk full at /s/x: nothing stored was harmed; make room and run the same command again",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            2,
            "error: disk full: nothing stored was harmed; make room and run the same command again",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/s/x"),
            2,
            "error: /s/x: permission denied; change its permissions, or name another store",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "/s/x"),
            2,
            "error: /s/x: the file system is read-only; change its permissions, or name another store",
        ),
    ],
)
def test_what_the_user_can_mend_is_one_line(
    pipeline: Path,
    probe: list[object],
    capfd: pytest.CaptureFixture[str],
    raised: BaseException,
    code: int,
    line: str,
) -> None:
    probe.append(raised)
    assert cli.main(["probe"]) == code
    assert capfd.readouterr().err.strip() == line


def met_by_a_library() -> None:
    """What a library may do whose own code meets Ctrl-C: it makes another error of it."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ValueError("could not determine the shape") from None


def lost_by_a_library() -> None:
    """What pyarrow does with a Ctrl-C while its own code imports pandas; the training goes on with its epochs."""
    with suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    epoch_lines("student")({"epoch": 1, "loss": 0.5, "seconds": 1.0})
    raise AssertionError("the interrupt is lost")


@pytest.mark.parametrize("library", [met_by_a_library, lost_by_a_library])
def test_an_interrupt_that_a_library_makes_another_error_of_or_none_is_one(
    pipeline: Path, probe: list[object], capfd: pytest.CaptureFixture[str], library: Callable[[], None]
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        probe.append(library)
        assert cli.main(["probe"]) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr().err.strip() == "interrupted; run the same command again to go on"


def test_what_the_user_can_not_mend_keeps_its_traceback(pipeline: Path, probe: list[object]) -> None:
    probe.append(OSError(errno.EBADF, "Bad file descriptor", "/s/x"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        cli.main(["probe"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("distil", "unknown command 'distil'; did you mean distill?"),
        ("xyzzy", f"unknown command 'xyzzy'; known: {', '.join(cli.COMMANDS)}"),
    ],
)
def test_an_unknown_command_is_answered_by_the_nearest(name: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name]) == 2
    assert capfd.readouterr().err.splitlines()[-1] == f"Error: {said}"


@pytest.mark.parametrize("arguments", [["--nonsense"], ["config", "--nonsense"], []])
def test_a_wrong_use_is_code_2(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert "Usage: ckd" in capfd.readouterr().err


def test_a_reader_that_stops_reading_is_no_error(pipeline: Path) -> None:
    code = "import sys; from ckd.pipeline.cli import main; sys.exit(main(['config', '--keys']))"
    done = subprocess.run(
        f'"{sys.executable}" -c "{code}" | true', shell=True, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
