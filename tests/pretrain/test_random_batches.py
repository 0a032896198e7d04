"""Every step of every training of a teacher sees long sequences and short ones: its batch is a random draw."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from ckd.stages.teachers import recformer, sasrec, unisrec
from ckd.stages.teachers.contract import DomainData, Job, TextVectors
from ckd.stages.teachers.recformer.adapt import adapt as adapt_recformer
from ckd.stages.teachers.recformer.checkpoint import Frozen
from ckd.stages.teachers.recformer.pretrain import pretrain as pretrain_recformer
from ckd.stages.teachers.sasrec.training import train as train_sasrec
from ckd.stages.teachers.unisrec.adapt import adapt as adapt_unisrec
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.stages.teachers.unisrec.pretrain import pretrain as pretrain_unisrec
from ckd.storage.corpus import Corpus

CPU = torch.device("cpu")
N_ITEMS, SHORT, LONG, USERS, BATCH = 24, 4, 24, 120, 20
STEPS = {"epochs": 3, "batch_size": BATCH, "precision": "float32"}
UNISREC = unisrec.NetworkSettings(hidden=8, experts=2, layers=1, heads=2, inner=8, max_length=LONG)
RECFORMER = recformer.NetworkSettings(
    vocabulary=300, hidden=8, layers=1, heads=2, inner=8, window=8, max_tokens=120, max_items=LONG
)


@pytest.fixture(scope="module")
def domain() -> DomainData:
    """Half of the users have a short sequence, half a long one."""
    draw = np.random.default_rng(0)
    lengths = np.tile([SHORT, LONG], USERS // 2)
    items = {
        "item": np.arange(N_ITEMS, dtype=np.int32),
        "item_id": [f"i{code:02d}" for code in range(N_ITEMS)],
        "title": [f"item {chr(97 + code)}" for code in range(N_ITEMS)],
        **{name: pa.nulls(N_ITEMS, pa.string()) for name in ("brand", "categories", "description")},
        "popularity": np.ones(N_ITEMS, np.int64),
    }
    corpus = Corpus(
        "halves",
        pa.table(items),
        pa.array([f"u{n:03d}" for n in range(USERS)]),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        draw.integers(N_ITEMS, size=lengths.sum()).astype(np.int32),
    )
    return DomainData(corpus, TextVectors(draw.normal(size=(N_ITEMS, 6)).astype(np.float32), "encoder"))


@contextmanager
def longest_read() -> Iterator[list[int]]:
    """Note how long the longest sequence is that a network in training reads at each step of an optimiser."""
    steps, now = [], [0]

    def read(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module.training and inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim == 3:
            now[0] = max(now[0], inputs[0].shape[1])

    def step(*_: Any) -> None:
        steps.append(now[0])
        now[0] = 0

    hooks = register_module_forward_pre_hook(read), register_optimizer_step_post_hook(step)
    try:
        yield steps
    finally:
        for hook in hooks:
            hook.remove()


def _pretrain_unisrec(domain: DomainData) -> None:
    settings = unisrec.PretrainSettings(network=UNISREC, held_out=0, item_drop_coefficient=1, **STEPS)
    pretrain_unisrec(Job(None, settings, CPU), [domain])


def _adapt_unisrec(domain: DomainData) -> None:
    adapt_unisrec(UniSRec(UNISREC, 6), Job(None, unisrec.AdaptSettings(**STEPS), CPU), domain.corpus, domain.text)


def _train_sasrec(domain: DomainData) -> None:
    train_sasrec(Job(None, sasrec.TrainSettings(hidden=8, blocks=1, max_length=LONG, **STEPS), CPU), domain.corpus)


def _pretrain_recformer(domain: DomainData) -> Frozen:
    settings = recformer.PretrainSettings(network=RECFORMER, held_out=2, **STEPS)
    model, tokenizer, _ = pretrain_recformer(Job(None, settings, CPU), [domain])
    return Frozen(model, tokenizer, None)


def _adapt_recformer(domain: DomainData) -> None:
    frozen = _pretrain_recformer(domain)
    adapt_recformer(frozen, Job(None, recformer.AdaptSettings(second_epochs=1, **STEPS), CPU), domain.corpus)


@pytest.mark.parametrize(
    "training", [_pretrain_unisrec, _adapt_unisrec, _train_sasrec, _pretrain_recformer, _adapt_recformer]
)
def test_no_batch_is_of_short_sequences_alone(training: Callable[[DomainData], Any], domain: DomainData) -> None:
    with longest_read() as steps:
        training(domain)
    assert len(steps) >= STEPS["epochs"] * (USERS // BATCH - 1)
    assert min(steps) > max(steps) / 2 > 2 * SHORT, steps
