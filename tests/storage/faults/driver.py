"""A process that has run `ckd` once and forks a child for every further run, so that a hundred take half a minute.

What is slow, imports and compiled expressions, is behind it then. It reads a request a line and answers each with a
line, both in JSON; see :class:`Driver`. The child is a real process, and its death a real one.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: its exit code; of a killed one, the signal as a negative number.
        err: what it printed to standard error.
        calls: of the disk, if it came to its end.
        failed: whether the failure that was asked for came to pass.
        seconds: that it took.
    """

    code: int
    err: str
    calls: int
    failed: bool
    seconds: float


class Driver:
    """The process, as the tests see it.

    Args:
        folder: with a ``pipeline.yaml``, in which it runs `ckd precompute` before all else.
    """

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
        command = [sys.executable, __file__, str(folder)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)

    def run(
        self,
        folder: Path,
        *arguments: str,
        fault: tuple[str, int] | None = None,
        seed: int = 0,
        kill_after: float | None = None,
        kill_with: int = signal.SIGKILL,
    ) -> Outcome:
        """Run `ckd` with some arguments in a folder.

        Args:
            folder: with ``pipeline.yaml`` and ``store``.
            arguments: of the command line.
            fault: how the disk fails, one of ``failing.FAILURES`` or ``power cut``, and at which call.
            seed: of what is lost in a power cut.
            kill_after: seconds until a signal is sent.
            kill_with: the signal.
        """
        request = {"folder": str(folder), "arguments": arguments, "fault": fault, "seed": seed}
        request |= {"after": kill_after, "number": int(kill_with)}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def _serve() -> None:
    import failing  # noqa: F401
    import power  # noqa: F401

    from ckd.pipeline.cli import main

    os.chdir(sys.argv[1])
    with redirect_stdout(sys.stderr):
        assert main(["precompute"]) == 0
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(vars(_child(**request))), flush=True)


def _child(
    folder: str, arguments: list[str], fault: tuple[str, int] | None, seed: int, after: float | None, number: int
) -> Outcome:
    said, says = os.pipe()
    counted, counts = os.pipe()
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        # Nothing of a child may reach the lines of its parent, however it ends.
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(says, 2)
        os._exit(_run(Path(folder), arguments, fault, seed, counts))
    os.close(says)
    os.close(counts)
    if after is not None:
        time.sleep(after)
        os.kill(child, number)
    err, count = _all_of(said), _all_of(counted)
    _, status = os.waitpid(child, 0)
    seconds = time.perf_counter() - started
    code = os.waitstatus_to_exitcode(status)
    calls, failed = json.loads(count) if count else (0, code == -signal.SIGKILL)
    return Outcome(code, err, calls, failed, seconds)


def _run(folder: Path, arguments: list[str], fault: tuple[str, int] | None, seed: int, counts: int) -> int:
    from failing import FailingDisk
    from power import PowerCut, PowerLoss

    from ckd.pipeline.cli import main
    from ckd.storage.disk import through

    os.chdir(folder)
    how, n = fault or ("no space", sys.maxsize)
    disk: Any = PowerLoss(folder / "disk", n, seed) if how == "power cut" else FailingDisk(n, how)
    code = 1
    try:
        with through(disk):
            code = main(arguments)
    except PowerCut:
        code = 99
    except BaseException:
        sys.excepthook(*sys.exc_info())
    if how == "power cut":
        disk.cut()
    os.write(counts, json.dumps([disk.calls, disk.failed]).encode())
    sys.stderr.flush()
    return code


def _all_of(descriptor: int) -> str:
    with os.fdopen(descriptor) as stream:
        return stream.read()


if __name__ == "__main__":
    _serve()
