"""A small Recformer and users who walk around a circle, for what pre-trains and adapts one."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from ckd.stages.teachers.contract import DomainData, Job
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS
from ckd.stages.teachers.recformer import NetworkSettings, PretrainSettings, training
from ckd.stages.teachers.recformer.files import TOKENIZER
from ckd.storage.corpus import Corpus
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
    """Users walk around a circle of items, each with a text of its own, by some step: the last item tells the next."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(5, 12, users)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    walks = [(draw.integers(N_ITEMS) + step * np.arange(n)) % N_ITEMS for n in lengths]
    items = {
        "item": np.arange(N_ITEMS, dtype=np.int32),
        "item_id": [f"item-{code:02d}" for code in range(N_ITEMS)],
        "title": [f"{COLOURS[code % 4]} {THINGS[code // 4]}" for code in range(N_ITEMS)],
        "brand": [THINGS[code % 5] for code in range(N_ITEMS)],
        "categories": pa.nulls(N_ITEMS, pa.string()),
        "description": pa.nulls(N_ITEMS, pa.string()),
    }
    return Corpus(
        "circle",
        pa.table(items),
        pa.array([f"u{n:03d}" for n in range(users)]),
        offsets,
        np.concatenate(walks).astype(np.int32),
    )


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
