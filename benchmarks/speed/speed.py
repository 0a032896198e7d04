"""How fast ckd's SASRec trains, plain and distilled, beside RecTools' two, in turn on the same data.

    python -m venv build/peers && build/peers/bin/pip install -r benchmarks/speed/requirements-peers.txt
    python benchmarks/speed/speed.py --peers build/peers/bin/python

The data have the shape of MovieLens-1M (`world.py`); every trainer has the last 100 items of each history, width 64,
two blocks, two heads, dropout 0.2, full softmax over the catalogue, batches of 128 sequences, float32 and the same
number of threads. ckd's distilled student learns from one teacher, labels read from a store, by both losses where no
other is named. A round gives every trainer a turn of the same number of seconds, the others waiting; ratios are taken
within a round, for a machine may be several times faster in one minute than in the next. A target is an item to be
predicted; padding is none.

The first run makes the data and the labels in `--work` (minutes); they are kept.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from turns import CLOCKS
from world import corpus_artifact, labels_in, write_sequences

from ckd.storage.corpus import read_corpus
from ckd.storage.store import Store

HERE = Path(__file__).parent
PLAIN, DISTILLED, MODEL, FLAT = "ckd, plain", "ckd, distilled", "RecTools SASRecModel", "RecTools FlatSASRecNet"
HALF, QUARTER = "ckd, distilled, taught_share: 0.5", "ckd, distilled, taught_share: 0.25"
TOP_K = "ckd, distilled, loss: {top_k: 1}"


class Trainer:
    """A process that trains when it has its turn."""

    def __init__(self, python: str, arguments: list[str], threads: int, clock: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        command = [python, *arguments, "--threads", str(threads), "--clock", clock]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
        )
        self._answer()

    def turn(self, seconds: float) -> float:
        """Let it train for so long and return its targets per second."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        said = self._answer()
        return said["targets"] / said["seconds"]

    def end(self) -> None:
        """Tell it that there are no more turns."""
        self._process.communicate("\n")

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # a library may print too
                return dict(json.loads(line))
        raise SystemExit(f"{' '.join(map(str, self._process.args))} ended early with {self._process.wait()}")


def main() -> None:
    """Start all trainers, take turns, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="Python of the peers' environment; without it only ckd is measured")
    parser.add_argument("--work", type=Path, default=Path("build/speed"), help="where data and labels are kept")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0, help="of one turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu on a machine at work, with --threads 1")
    chosen = parser.parse_args()
    sequences = _prepare(chosen.work)
    trainers = {
        name: Trainer(python, arguments, chosen.threads, chosen.clock)
        for name, (python, arguments) in _commands(chosen.work, sequences, chosen.peers).items()
    }
    found: dict[str, list[float]] = {name: [] for name in trainers}
    loads = []
    for number in range(chosen.rounds):
        for name, trainer in trainers.items():
            found[name].append(trainer.turn(chosen.seconds))
        loads.append(os.getloadavg()[0])
        speeds = ", ".join(f"{name} {values[-1]:,.0f}" for name, values in found.items())
        print(f"round {number + 1}: {speeds} targets/s", file=sys.stderr)
    for trainer in trainers.values():
        trainer.end()
    load = f"load average {min(loads):.1f} to {max(loads):.1f}"
    print(f"{chosen.rounds} rounds, {chosen.threads} threads, {chosen.clock} time, {load}\n")
    print(table(found))


def table(found: dict[str, list[float]]) -> str:
    """Return the speeds and the ratios within rounds, median and range, as Markdown."""
    versus = [name for name in (PLAIN, MODEL, FLAT) if name in found]
    lines = [
        f"| trainer | targets/s, median | range | {' | '.join(f'times {name}' for name in versus)} |",
        f"|---|---:|---|{'---:|' * len(versus)}",
    ]
    for name, values in found.items():
        ratios = [_spread([own / other for own, other in zip(values, found[base], strict=True)]) for base in versus]
        speed = f"{median(values):,.0f} | {min(values):,.0f} .. {max(values):,.0f}"
        lines.append(f"| {name} | {speed} | {' | '.join(ratios)} |")
    return "\n".join(lines)


def _spread(ratios: list[float]) -> str:
    return f"{median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f})"


def _prepare(work: Path) -> Path:
    store = Store(work / "store")
    corpus = read_corpus(corpus_artifact(store))
    labels_in(store, corpus)
    sequences = work / "sequences.npz"
    write_sequences(corpus, sequences)
    return sequences


def _commands(work: Path, sequences: Path, peers: str | None) -> dict[str, tuple[str, list[str]]]:
    ours = [str(HERE / "ours.py"), str(work / "store")]
    distilled = [*ours, "--distilled"]
    commands = {
        PLAIN: (sys.executable, ours),
        DISTILLED: (sys.executable, distilled),
        HALF: (sys.executable, [*distilled, "--taught-share", "0.5"]),
        QUARTER: (sys.executable, [*distilled, "--taught-share", "0.25"]),
        TOP_K: (sys.executable, [*distilled, "--loss", "top_k"]),
    }
    if peers:
        theirs = [str(HERE / "peers.py"), str(sequences)]
        commands |= {MODEL: (peers, [*theirs, "rectools"]), FLAT: (peers, [*theirs, "rectools-flat"])}
    return commands


if __name__ == "__main__":
    main()
