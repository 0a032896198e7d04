"""What it costs to serve a recommender: seconds for the ten best items of a thousand users."""

import time

import numpy as np
import torch

from ckd.stages.evaluate.ranking import Scorer
from ckd.storage.corpus import Corpus

USERS = 1_000
BATCH = 250
SHOWN = 10
ROUNDS = 5


def milliseconds_per_1000_users(scorer: Scorer, corpus: Corpus) -> float:
    """Return the least time to encode the last history of 1,000 users, score the catalogue and take the top ten.

    A domain with fewer users is measured on those it has and scaled. One round before the measured ones warms up; of
    those the fastest counts, for what else the machine does can only add to the time.
    """
    users = np.arange(min(USERS, corpus.n_users), dtype=np.int32)
    position = (corpus.lengths[users] - 1).astype(np.int32)
    seconds = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        for begin in range(0, len(users), BATCH):
            some = slice(begin, begin + BATCH)
            scores = scorer(users[some], position[some])
            scores.topk(min(SHOWN, corpus.n_items), dim=1).indices.cpu()
        seconds.append(time.perf_counter() - started)
    return 1e3 * min(seconds[1:]) * USERS / len(users)


def count_parameters(model: torch.nn.Module) -> int:
    """Return the number of parameters of a network."""
    return sum(tensor.numel() for tensor in model.parameters())
