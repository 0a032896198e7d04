"""Is what trains faster as good? ckd's undistilled SASRec beside RecTools' two on a bundled domain, ranked by one code.

    python benchmarks/speed/quality.py office --peers build/peers/bin/python

All have the same sizes, batches, learning rate, histories and number of epochs at most, and each its own defaults
besides; of each, dropout and epoch are chosen by NDCG@10 on the validation targets. Every ranking and every metric
is `ckd.stages.evaluate`'s, the peers' too, from the vectors that they write after each epoch (`quality_peers.py`):
RecTools' own NDCG divides by the ideal gain of k relevant items and is not comparable.
"""

import argparse
import subprocess
from pathlib import Path

import numpy as np
import torch
from world import write_sequences

from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.train import WATCHED, train
from ckd.stages.evaluate.metrics import metrics
from ckd.stages.evaluate.ranking import Scorer, rank_targets, validation_ndcg
from ckd.stages.prepare.prepare import prepare_domain
from ckd.stages.prepare.settings import DomainSettings
from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import side_by_side
from ckd.storage.corpus import HELD_OUT, Corpus, read_corpus
from ckd.storage.store import Store

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAMES = {"ckd": "ckd, plain", "rectools": "RecTools SASRecModel", "rectools-flat": "RecTools FlatSASRecNet"}
CUTOFFS = (10, 50)
SHOWN = ("recall@10", "ndcg@10", "recall@50", "ndcg@50")

Row = dict[str, float]


def main() -> None:
    """Train everybody, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain", choices=("scientific", "office"))
    parser.add_argument("--peers", required=True, help="Python of the peers' environment")
    parser.add_argument("--work", type=Path, default=Path("build/speed"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--max-length", type=int, default=30)
    parser.add_argument("--dropouts", type=float, nargs="+", default=[0.2, 0.5], help="tried of each trainer")
    parser.add_argument("--trainers", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    settings = DomainSettings(path=ROOT / "samples" / chosen.domain)
    corpus = read_corpus(prepare_domain(Store(chosen.work / "store"), chosen.domain, settings))
    write_sequences(corpus, chosen.work / f"{chosen.domain}.npz")
    print("| trainer | dropout | epoch | valid ndcg@10 | recall@10 | ndcg@10 | recall@50 | ndcg@50 |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    for trainer in chosen.trainers:
        rows = [
            _ours(corpus, chosen, dropout) if trainer == "ckd" else _theirs(corpus, chosen, trainer, dropout)
            for dropout in chosen.dropouts
        ]
        best = max(rows, key=lambda row: row["valid"])
        shown = " | ".join(
            f"{best[metric]:.4f}" for metric in ("valid", "recall@10", "ndcg@10", "recall@50", "ndcg@50")
        )
        print(f"| {NAMES[trainer]} | {best['dropout']} | {best['epoch']:.0f} | {shown} |", flush=True)


def _ours(corpus: Corpus, chosen: argparse.Namespace, dropout: float) -> Row:
    torch.manual_seed(0)
    kind, domains = STUDENTS.load("sasrec"), side_by_side([corpus])
    sizes = kind.Settings(hidden=64, blocks=2, heads=2, dropout=dropout, max_length=chosen.max_length)
    student = kind.build(sizes, domains)
    settings = DistillSettings(epochs=chosen.epochs, patience=chosen.epochs)
    curve = train(student, domains, [None], sizes, settings, seed=0)
    best = max(curve, key=lambda row: row[WATCHED])
    return {"dropout": dropout, "epoch": best["epoch"], **_measured(student.scorer(domains[0]), corpus)}


def _theirs(corpus: Corpus, chosen: argparse.Namespace, peer: str, dropout: float) -> Row:
    folder = chosen.work / f"{chosen.domain}-{peer}-{dropout}"
    options = {"epochs": chosen.epochs, "dropout": dropout, "max-length": chosen.max_length, "threads": chosen.threads}
    command = [chosen.peers, HERE / "quality_peers.py", chosen.work / f"{chosen.domain}.npz", peer, folder]
    command += [text for name, value in options.items() for text in (f"--{name}", value)]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    best = 0.0
    for epoch in range(1, chosen.epochs + 1):
        with np.load(folder / f"epoch-{epoch:02}.npz") as vectors:
            score = _scorer(dict(vectors), corpus)
        if (valid := validation_ndcg(score, corpus)) > best:
            best, chosen_epoch, kept = valid, epoch, score
    return {"dropout": dropout, "epoch": chosen_epoch, **_measured(kept, corpus)}


def _scorer(vectors: dict[str, np.ndarray], corpus: Corpus) -> Scorer:
    def score(users: np.ndarray, position: np.ndarray) -> torch.Tensor:
        split = "valid" if position[0] == corpus.lengths[users[0]] - HELD_OUT else "test"
        # An item that a peer does not know ranks behind all others.
        scores = np.full((len(users), corpus.n_items), -np.inf, np.float32)
        scores[:, vectors["known"]] = vectors[split][users] @ vectors["items"].T
        return torch.from_numpy(scores)

    return score


def _measured(score: Scorer, corpus: Corpus) -> Row:
    return {"valid": validation_ndcg(score, corpus), **metrics(rank_targets(score, corpus, "test"), CUTOFFS)}


if __name__ == "__main__":
    main()
