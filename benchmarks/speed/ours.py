"""ckd's side: `train` of the distill stage, in turns, with or without one teacher. Started by `speed.py`."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from turns import CLOCKS, Turns
from world import MAX_LENGTH, corpus_artifact, labels_in

from ckd.pipeline.device import chosen_device
from ckd.stages.batching import random_batches, training_windows
from ckd.stages.distill.run import prepare_lesson
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.train import Epoch, train
from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import side_by_side
from ckd.storage.corpus import Corpus, read_corpus
from ckd.storage.store import Store

SEED = 0


def main() -> None:
    """Train until there are no more turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--distilled", action="store_true")
    parser.add_argument("--taught-share", type=float, default=1.0, help="of a step's positions")
    parser.add_argument("--loss", nargs="+", default=["in_batch", "top_k"], help="with weight 1 each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    device = chosen_device("cpu")
    store = Store(chosen.store)
    artifact = corpus_artifact(store)
    corpus = read_corpus(artifact)
    # No curriculum, so that every epoch serves every sequence, as everybody else's does.
    endless = {"epochs": 10_000, "patience": 10_000, "curriculum": {"pacing": "none"}}
    taught = {"taught_share": chosen.taught_share, "loss": dict.fromkeys(chosen.loss, 1.0)}
    settings = DistillSettings.model_validate({**endless, **taught})
    lesson = None
    if chosen.distilled:
        lesson = prepare_lesson(corpus, artifact, {"random": labels_in(store, corpus)}, settings, device)
    kind = STUDENTS.load("sasrec")
    torch.manual_seed(SEED)
    sizes = kind.Settings(hidden=64, blocks=2, heads=2, dropout=0.2, max_length=MAX_LENGTH)
    turns, counts, last = Turns(chosen.clock), _targets_per_step(corpus, settings.batch_size), [0.0]

    def stepped(*_: object) -> None:
        turns.step_done(next(counts))
        last[0] = turns.now()

    def validated(_: Epoch) -> None:
        turns.leave_out(turns.now() - last[0])

    register_optimizer_step_post_hook(stepped)
    domains = side_by_side([corpus])
    train(kind.build(sizes, domains), domains, [lesson], sizes, settings, SEED, on_epoch=validated)


def _targets_per_step(corpus: Corpus, batch_size: int) -> Iterator[int]:
    """Yield the real targets of each step of `train`: the same seed draws the same batches."""
    length, draw = training_windows(corpus, MAX_LENGTH).length, np.random.default_rng(SEED)
    while True:
        for batch in random_batches(len(length), batch_size, draw):
            yield int(length[batch].sum())


if __name__ == "__main__":
    main()
