"""A batch of histories of many lengths is read in passes of like length: what comes out is what one pass would give."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from ckd.stages.teachers.recformer import NetworkSettings
from ckd.stages.teachers.recformer.config import from_settings
from ckd.stages.teachers.recformer.encode import encode_batch, groups
from ckd.stages.teachers.recformer.masking import IGNORED, mask
from ckd.stages.teachers.recformer.network import Recformer
from ckd.stages.teachers.recformer.pretrain import Pretraining, item_contrast
from ckd.stages.teachers.recformer.tokens import NAME_TYPE, Inputs, ItemTokens, Limits, assemble

CPU = torch.device("cpu")
LIMITS = Limits(3, 8, 40, 400)
VOCABULARY = 300
SIZES = NetworkSettings(
    vocabulary=VOCABULARY, hidden=8, layers=2, heads=2, inner=8, window=8, max_tokens=400, max_items=40, dropout=0.0
)


@pytest.fixture(scope="module")
def network() -> Pretraining:
    torch.manual_seed(0)
    config = from_settings(SIZES).model_copy(update={"initializer_range": 0.3})
    return Pretraining(Recformer(config), 0.5, np.arange(VOCABULARY) % 2 == 0, 4)


def batch_of(items: list[int]) -> Inputs:
    """Histories of so many items each, of random tokens."""
    draw = np.random.default_rng(len(items))
    lengths = draw.integers(1, 12, 50)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = draw.integers(5, VOCABULARY, offsets[-1]).astype(np.int32)
    tokens = ItemTokens(ids, np.full(len(ids), NAME_TYPE, np.int8), offsets)
    sequence = draw.integers(50, size=100).astype(np.int32)
    end = draw.integers(35, 100, len(items))
    return assemble(tokens, sequence, end, np.array(items, np.int64), LIMITS)


batches = st.lists(st.integers(0, 35), min_size=1, max_size=12).map(batch_of)


def test_a_batch_of_short_and_long_histories_is_read_in_several_passes() -> None:
    batch = batch_of([1] * 40 + [30] * 3)
    read = groups(batch.lengths, CPU)
    assert len(read) > 1
    assert sorted(np.concatenate(read).tolist()) == list(range(43))


@given(batch=batches)
def test_some_rows_of_a_batch_are_padded_to_their_own_longest(batch: Inputs) -> None:
    rows = np.arange(len(batch.ids))[::2][::-1].copy()
    part = batch.take(rows)
    assert part.ids.shape == (len(rows), batch.lengths[rows].max())
    assert part.lengths.tolist() == batch.lengths[rows].tolist()
    for name in vars(batch):
        for at, row in enumerate(rows):
            length = batch.lengths[row]
            assert torch.equal(getattr(part, name)[at, :length], getattr(batch, name)[row, :length])


@given(batch=batches)
def test_vectors_come_in_the_order_of_the_batch(network: Pretraining, batch: Inputs) -> None:
    model = network.longformer
    together = encode_batch(model, batch, CPU)
    alone = torch.cat([model(batch.take(np.array([row]))) for row in range(len(batch.ids))])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@given(batch=batches, seed=st.integers(0, 99))
def test_the_loss_of_masked_words_is_the_mean_over_all_of_them(network: Any, batch: Inputs, seed: int) -> None:
    changed, wanted = mask(batch, np.arange(VOCABULARY) % 2 == 0, 4, np.random.default_rng(seed))
    states = network.longformer.hidden_states(changed)[-1]
    expected = [
        F.cross_entropy(network.lm_head(states[row, at][None]), wanted[row, at][None])
        for row, at in (wanted != IGNORED).nonzero().tolist()
    ]
    loss = network.masked_language(changed, wanted, CPU)
    torch.testing.assert_close(
        loss, torch.stack(expected).mean() if expected else torch.zeros(()), rtol=1e-4, atol=1e-5
    )


def test_gradients_are_those_of_one_pass(network: Pretraining) -> None:
    histories, items = batch_of([1] * 40 + [30] * 3), batch_of([1] * 43)

    def gradients(loss: torch.Tensor) -> list[torch.Tensor | None]:
        return list(torch.autograd.grad(loss, list(network.longformer.parameters()), allow_unused=True))

    model = network.longformer
    in_passes = gradients(network.combined(histories, items, [], CPU))
    at_once = gradients(item_contrast(model(histories), model(items), model.config.temp))
    assert any(one is not None and bool(one.abs().max() > 1e-3) for one in at_once)
    for one, other in zip(in_passes, at_once, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
