"""What distillation is worth on the bundled data, both sides fairly tuned.

    ckd precompute                              # the labels, once
    python benchmarks/gain/gain.py tune         # both arms: same grid, one seed, chosen on validation NDCG@10
    python benchmarks/gain/gain.py table        # each arm's choice, three seeds, test metrics

Both arms (without and with distillation) try every point of the same grid of the student's own hyper-parameters, on
each domain, with one seed. The point with the best NDCG@10 on validation is kept for each arm and domain; test targets
are looked at only by `table`. What concerns distillation alone (alpha, temperature, weighting, curriculum) stays at
the defaults of ckd throughout. Every run is an artifact of the store: repeating a command trains nothing twice.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ckd.pipeline.config.load import load_configuration
from ckd.pipeline.plan import Plan, Run
from ckd.stages.evaluate.bootstrap import relative_gain
from ckd.stages.evaluate.metrics import row_metrics
from ckd.storage.artifact import Artifact
from ckd.storage.runs import read_metrics, read_ranks

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = ROOT / "pipeline.yaml"
CHOSEN = Path(__file__).with_name("chosen.json")
STUDENT = "sasrec"
RATES = ("distill.batch_size", *(f"students.{STUDENT}.{name}" for name in ("learning_rate", "weight_decay", "dropout")))
GRID = [
    dict(zip(RATES, values, strict=True))
    for values in ((128, 0.001, 0.0, 0.5), (128, 0.001, 0.5, 0.5), (128, 0.001, 0.5, 0.3), (512, 0.002, 1.0, 0.5))
]
ARMS = {"plain": ["distill.alpha=0"], "distilled": ["distill.baseline=false", "distill.teachers=[unisrec]"]}
METRICS = ("recall@10", "recall@50", "ndcg@10", "ndcg@50", "mrr")

Point = Mapping[str, float]


def overrides(arm: str, point: Point, seed: int) -> list[str]:
    """Return the overrides of one trial."""
    return [*ARMS[arm], f"seed={seed}", *(f"{key}={value}" for key, value in point.items())]


def train(domain: str, arm: str, point: Point, seed: int) -> Artifact:
    """Return the run of one trial, trained by `ckd distill` in a process of its own unless the store has it."""
    settings = overrides(arm, point, seed)
    plan = Plan(load_configuration(CONFIGURATION, settings))
    address = plan.run(Run(STUDENT, (domain,), arm == "distilled"))
    if (found := plan.store.find(address)) is not None:
        return found
    path = plan.configuration.domains[domain].path
    arguments = [f"--set={setting}" for setting in [*settings, f"domains={{{domain}: {{path: {path}}}}}"]]
    command = [sys.executable, "-m", "ckd.pipeline", "-c", str(CONFIGURATION), "distill", *arguments]
    # One thread each: two trainings at a time use two cores better than one after the other.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    found = plan.store.find(address)
    if found is None:
        raise RuntimeError(f"ckd distill left no run for {domain}, {arm}, {settings}")
    return found


def tune(jobs: int) -> None:
    """Try the grid on both arms and all domains, print every trial, keep the choices."""
    trials = [(domain, arm, point) for domain in domains() for arm in ARMS for point in GRID]
    with ThreadPoolExecutor(jobs) as pool:
        runs = list(pool.map(lambda trial: train(*trial, 0), trials))
    best: dict[str, dict[str, Point]] = {domain: {} for domain in domains()}
    scores: dict[tuple[str, str], float] = {}
    for (domain, arm, point), run in zip(trials, runs, strict=True):
        score = read_metrics(run, domain)["valid"]["ndcg@10"]
        shown = "  ".join(f"{key.split('.')[-1]} {value:<7}" for key, value in point.items())
        print(f"{domain:12}{arm:11}{shown}  valid NDCG@10 {score:.4f}  best epoch {run.facts['best_epoch']}")
        if score > scores.get((domain, arm), -1.0):
            scores[domain, arm], best[domain][arm] = score, point
    CHOSEN.write_text(json.dumps(best, indent=1) + "\n")
    print(f"chosen: {CHOSEN}")


def table(seeds: int, jobs: int) -> None:
    """Train each arm's choice with several seeds and print the test metrics as a Markdown table."""
    chosen = json.loads(CHOSEN.read_text())
    trials = [(domain, arm, chosen[domain][arm], seed) for domain in chosen for arm in ARMS for seed in range(seeds)]
    with ThreadPoolExecutor(jobs) as pool:
        runs = dict(
            zip([trial[:2] + trial[3:] for trial in trials], pool.map(lambda t: train(*t), trials), strict=True)
        )
    print("| domain | student | " + " | ".join(METRICS) + " |")
    print("|---|---|" + "---:|" * len(METRICS))
    for domain in chosen:
        means = {arm: [rows(runs[domain, arm, seed], domain) for seed in range(seeds)] for arm in ARMS}
        for arm, values in means.items():
            cells = (spread([value[name].mean() for value in values]) for name in METRICS)
            print(f"| {domain} | {STUDENT} {arm} | " + " | ".join(cells) + " |")
        gains = (gain(means["plain"], means["distilled"], name) for name in METRICS)
        print(f"| {domain} | difference, 95 % interval | " + " | ".join(gains) + " |")
        each = [
            100 * (after["ndcg@10"].mean() / before["ndcg@10"].mean() - 1)
            for before, after in zip(means["plain"], means["distilled"], strict=True)
        ]
        print(f"<!-- {domain}: NDCG@10 gain by seed: " + ", ".join(f"{value:+.1f} %" for value in each) + " -->")


def rows(run: Artifact, domain: str) -> dict[str, np.ndarray]:
    """Return each metric of each user's test target."""
    return row_metrics(read_ranks(run, domain, "test"), (10, 50))


def spread(values: list[float]) -> str:
    """Return mean and standard deviation over seeds."""
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def gain(plain: list[dict[str, np.ndarray]], distilled: list[dict[str, np.ndarray]], name: str) -> str:
    """Return the gain of the mean over seeds, with the paired bootstrap interval over users."""
    before, after = (np.mean([value[name] for value in side], axis=0) for side in (plain, distilled))
    found = relative_gain(before, after)
    return f"{found.percent:+.1f} % ({found.low:+.1f} .. {found.high:+.1f})"


def domains() -> list[str]:
    """Return the domains of the configuration."""
    return list(load_configuration(CONFIGURATION).domains)


def main() -> None:
    """Run one of the two steps."""
    parser = argparse.ArgumentParser(description="What distillation is worth on the bundled data.")
    parser.add_argument("step", choices=("tune", "table"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.step == "tune":
        tune(arguments.jobs)
    else:
        table(arguments.seeds, arguments.jobs)


if __name__ == "__main__":
    main()
