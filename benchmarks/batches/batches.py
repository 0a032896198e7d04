"""What it costs a student when the sequences of a batch are of like length, on a bundled domain.

    python benchmarks/batches/batches.py office

A plain SASRec of the default recipe is trained twice per seed: on random batches, as `ckd distill` does, and on batches
of like length (fifty batches' worth of shuffled sequences sorted by length), which hold hardly any padding. All else is
equal, the epoch is chosen by NDCG@10 on the validation targets, and a seed gives both arms the same start.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from ckd.stages.batching import random_batches, training_windows
from ckd.stages.distill import train as training
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.evaluate.metrics import metrics
from ckd.stages.evaluate.ranking import rank_targets
from ckd.stages.prepare.prepare import prepare_domain
from ckd.stages.prepare.settings import DomainSettings
from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import side_by_side
from ckd.storage.corpus import Corpus, read_corpus
from ckd.storage.store import Store

ROOT = Path(__file__).parents[2]
_POOL = 50
"""Batches' worth of sequences that are sorted together."""
Batches = Callable[[int, int, np.random.Generator], list[Any]]


def main() -> None:
    """Train both arms with every seed, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain", choices=("scientific", "office"))
    parser.add_argument("--work", type=Path, default=Path("build/batches"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    settings = DomainSettings(path=ROOT / "samples" / chosen.domain)
    corpus = read_corpus(prepare_domain(Store(chosen.work / "store"), chosen.domain, settings))
    print("| domain | batches | seed | valid ndcg@10 | epoch | recall@10 | ndcg@10 | recall@50 | s / epoch |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    for seed in range(chosen.seeds):
        for name, batches in (("of like length", _of_like_length(corpus)), ("random", random_batches)):
            print(f"| {chosen.domain} | {name} | {seed} | {_row(corpus, batches, seed)} |", flush=True)


def _of_like_length(corpus: Corpus) -> Batches:
    length = training_windows(corpus, max_length=_options().max_length).length

    def batches(n: int, batch_size: int, draw: np.random.Generator) -> list[Any]:
        assert len(length) == n, "without a curriculum an epoch serves all sequences, in order"
        pools = random_batches(n, _POOL * batch_size, draw)
        sorted_pools = [pool[np.argsort(length[pool], kind="stable")] for pool in pools]
        made = [pool[at : at + batch_size] for pool in sorted_pools for at in range(0, len(pool), batch_size)]
        draw.shuffle(made)
        return made

    return batches


def _options() -> Any:
    return STUDENTS.load("sasrec").Settings()


def _row(corpus: Corpus, batches: Batches, seed: int) -> str:
    options, domains = _options(), side_by_side([corpus])
    torch.manual_seed(seed)
    student = STUDENTS.load("sasrec").build(options, domains)
    with patch.object(training, "random_batches", batches):
        curve = training.train(student, domains, [None], options, DistillSettings(), seed)
    best = max(curve, key=lambda row: row[training.WATCHED])
    test = metrics(rank_targets(student.scorer(domains[0]), corpus, "test"), (10, 50))
    seconds = np.median([row["seconds"] for row in curve])
    shown = " | ".join(f"{test[metric]:.4f}" for metric in ("recall@10", "ndcg@10", "recall@50"))
    return f"{best[training.WATCHED]:.4f} | {best['epoch']:.0f} | {shown} | {seconds:.1f}"


if __name__ == "__main__":
    main()
