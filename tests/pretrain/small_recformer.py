"""A small Recformer and users who walk around a circle, for what pre-trains and adapts one."""

from pathlib import Path

import numpy as np
import torch
from circle_world import circle_corpus

from ckd.stages.teachers.contract import DomainData, Job
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS
from ckd.stages.teachers.recformer import NetworkSettings, PretrainSettings, training
from ckd.stages.teachers.recformer.files import TOKENIZER
from ckd.storage.keys import Address
from ckd.storage.progress import forget_training
from ckd.storage.store import Store

CPU = torch.device("cpu")
N_ITEMS, USERS = 20, 60
COLOURS, THINGS = ("red", "blue", "steel", "paper"), ("tape", "pen", "box", "nail", "ink")
NETWORK = NetworkSettings(
    vocabulary=330, hidden=16, layers=2, heads=2, inner=24, window=8, max_tokens=60, max_items=4, dropout=0.0
)
PRETRAIN = PretrainSettings(
    network=NETWORK, epochs=12, patience=12, held_out=16, batch_size=16, learning_rate=0.01, precision="float32", seed=4
)
FILES = (CONFIG, WEIGHTS, TOKENIZER)


def circle(seed, users=USERS, step=1):
    """Users who walk around the items by some step."""
    return circle_corpus(np.random.default_rng(seed), users, COLOURS, THINGS, step)


SOURCES = [DomainData(circle(1)), DomainData(circle(2, 30))]


class Interrupted(Exception):
    """Stands for whatever ends a process between two epochs."""


def pretrained_in(folder: Path):
    """Pre-train a Recformer on two sources in a folder; return its files, its curve, and the facts about it."""
    rows = []
    with Store(folder).draft(Address("teachers", {"a": 1})) as draft:
        facts = training.pretrain_into(Job(draft, PRETRAIN, CPU, rows.append), SOURCES)
        forget_training(draft)
        artifact = draft.commit(facts)
    return {name: artifact.path / name for name in FILES}, rows, facts
