"""How long `ckd --help` and `ckd status` take to answer: the best and the median of several processes.

    ckd precompute && ckd distill               # so that status has something to look at
    python benchmarks/startup/startup.py

It changes nothing in the store.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def seconds(*arguments: str) -> float:
    """Return the wall clock of one process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ckd.pipeline", *arguments], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Print one line per command."""
    parser = argparse.ArgumentParser(description="How long ckd takes to answer.")
    parser.add_argument("--times", type=int, default=10)
    times = parser.parse_args().times
    for command in ("--help", "status"):
        taken = [seconds(command) for _ in range(times)]
        print(f"ckd {command:8} best {min(taken):.2f} s, median {statistics.median(taken):.2f} s of {times}")


if __name__ == "__main__":
    main()
