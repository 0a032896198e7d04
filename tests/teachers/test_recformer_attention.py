"""Attention within a window and to the first token, against one row at a time."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.teachers.recformer import NetworkSettings
from ckd.stages.teachers.recformer.attention import DENSE_UP_TO, dense, in_blocks, windowed_attention
from ckd.stages.teachers.recformer.config import from_settings
from ckd.stages.teachers.recformer.network import SelfAttention

WAYS = {"dense": dense, "in blocks": in_blocks}


def softmax(logits):
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def row(query, keys, values, seen):
    """Attention of one query to some keys: [d], [L, d], [L, d] -> [d]."""
    weights = softmax(keys[seen] @ query / math.sqrt(len(query)))
    return weights @ values[seen]


def one_by_one(q, k, v, lengths, reach):
    """Row i of a sequence sees j if it is real and at most ``reach`` away, and the first one, once."""
    out = np.zeros(q.shape)
    for b, length in enumerate(lengths):
        for h in range(q.shape[1]):
            for i in range(length):
                seen = sorted({0, *range(max(0, i - reach), min(length, i + reach + 1))})
                out[b, h, i] = row(q[b, h, i], k[b, h], v[b, h], seen)
    return out


@st.composite
def batches(draw):
    """Queries, keys and values [B, heads, L, d], the lengths before padding, and how far a token sees."""
    lengths = draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))
    reach, heads = draw(st.integers(1, 6)), draw(st.integers(1, 2))
    padded = max(lengths) + draw(st.integers(0, 7))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32))).normal(size=(3, len(lengths), heads, padded, 3))
    return numbers, lengths, reach


def real_of(lengths, width):
    return torch.arange(width) < torch.tensor(lengths).unsqueeze(1)


@pytest.mark.parametrize("way", WAYS)
@given(batches())
def test_each_token_sees_its_window_and_the_first_token_once(way, batch):
    numbers, lengths, reach = batch
    q, k, v = (torch.from_numpy(each) for each in numbers)
    real = real_of(lengths, q.shape[2])
    found = WAYS[way](q, k, v, real, reach, 0.0).numpy()
    expected = one_by_one(*numbers, lengths, reach)
    inside = real.unsqueeze(1).expand(found.shape[:3]).numpy()
    np.testing.assert_allclose(found[inside], expected[inside], rtol=1e-10, atol=1e-12)
    assert np.isfinite(found).all()


@given(batches())
def test_what_is_padded_has_no_influence(batch):
    numbers, lengths, reach = batch
    real = real_of(lengths, numbers.shape[3])
    other = np.where(real.numpy()[None, :, None, :, None], numbers, 1e4)
    inside = real.unsqueeze(1).expand(numbers.shape[1:4])
    for way in WAYS.values():
        found, poisoned = (way(*torch.from_numpy(each), real, reach, 0.0) for each in (numbers, other))
        torch.testing.assert_close(poisoned[inside], found[inside], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("more", [0, 1], ids=["the longest in one piece", "the shortest in blocks"])
def test_both_sides_of_the_length_at_which_the_way_changes_compute_the_same(more):
    length = DENSE_UP_TO * 2 + more
    numbers = np.random.default_rng(0).normal(size=(3, 1, 1, length, 3))
    q, k, v = (torch.from_numpy(each) for each in numbers)
    found = windowed_attention(q, k, v, real_of([length], length), 2).numpy()
    np.testing.assert_allclose(found, one_by_one(*numbers, [length], 2), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("length", [5, 60], ids=["dense", "in blocks"])
def test_dropped_weights_are_made_up_for_by_the_others(length):
    """The mean over many passes is the pass without dropout; no single one is."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, length, 3, generator=generator).expand(4000, -1, -1, -1) for _ in range(3))
    real = torch.ones(4000, length, dtype=torch.bool)
    torch.manual_seed(0)
    plain, dropped = (windowed_attention(q, k, v, real, 2, share) for share in (0.0, 0.5))
    torch.testing.assert_close(dropped.mean(0), plain[0], rtol=0, atol=0.12)
    assert (dropped - plain).abs().amax((1, 2, 3)).min() > 0.1
    assert not torch.equal(dropped[0], dropped[1])


# --- the first token's row, which is global


def projections(width, heads, seed, dropout=0.0):
    network = NetworkSettings(hidden=width, heads=heads, layers=1, window=4, dropout=dropout)
    module = SelfAttention(from_settings(network), 4).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    return module


def linear(module, name, x):
    weight, bias = (getattr(getattr(module, name), part).detach().numpy() for part in ("weight", "bias"))
    return x @ weight.T + bias


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3), st.sampled_from([(6, 1), (6, 2), (6, 3)]), st.integers(0, 99)
)
def test_the_first_row_sees_every_real_token_through_the_global_projections(lengths, sizes, seed):
    """Worked out with a key and a value at every token, biases and all."""
    (width, heads), module = sizes, projections(*sizes, seed)
    x = np.random.default_rng(seed).normal(size=(len(lengths), max(lengths) + 2, width))
    with torch.inference_mode():
        found = module.first(torch.from_numpy(x), real_of(lengths, x.shape[1])).numpy()
    assert found.shape == (len(lengths), 1, width)
    for b, length in enumerate(lengths):
        query = linear(module, "query_global", x[b, 0])
        keys, values = (linear(module, f"{name}_global", x[b]) for name in ("key", "value"))
        for head in np.split(np.arange(width), heads):
            expected = row(query[head], keys[:, head], values[:, head], range(length))
            np.testing.assert_allclose(found[b, 0, head], expected, rtol=1e-8, atol=1e-10)


def test_all_other_rows_come_from_the_local_projections():
    module, x = projections(6, 2, seed=1), np.random.default_rng(1).normal(size=(1, 9, 6))
    real = torch.ones(1, 9, dtype=torch.bool)
    with torch.inference_mode():
        found, first = module(torch.from_numpy(x), real), module.first(torch.from_numpy(x), real)
    assert torch.equal(found[:, :1], first)
    q, k, v = (
        linear(module, name, x[0]).reshape(9, 2, 3).transpose(1, 0, 2)[None] for name in ("query", "key", "value")
    )
    expected = one_by_one(q, k, v, [9], 2)[0].transpose(1, 0, 2).reshape(9, 6)
    np.testing.assert_allclose(found[0, 1:].numpy(), expected[1:], rtol=1e-8, atol=1e-10)


def test_the_first_row_drops_weights_in_training_only():
    module = projections(6, 2, seed=2, dropout=0.5)
    x, real = torch.randn(1, 9, 6, dtype=torch.float64), torch.ones(1, 9, dtype=torch.bool)
    with torch.inference_mode():
        plain = module.first(x, real)
        assert torch.equal(module.first(x, real), plain)
        module.train()
        torch.manual_seed(0)
        dropped = module.first(x.expand(4000, -1, -1), real.expand(4000, -1))
    assert not torch.equal(dropped[0], dropped[1])
    torch.testing.assert_close(dropped.mean(0), plain[0], rtol=0, atol=0.25)
