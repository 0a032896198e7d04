"""The paired bootstrap: deterministic, honest about nothing, sure of something."""

import math

import numpy as np
import pytest

from ckd.stages.evaluate.bootstrap import relative_gain, relative_gains


@pytest.fixture
def base():
    return np.random.default_rng(0).random(400)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another(base):
    other = base + np.random.default_rng(1).normal(0.0, 0.3, len(base))
    first = relative_gain(base, other, 500, seed=3)
    assert relative_gain(base, other, 500, seed=3) == first
    assert relative_gain(base, other, 500, seed=4) != first


def test_identical_inputs_gain_nothing_for_certain(base):
    gain = relative_gain(base, base.copy(), 500)
    assert (gain.percent, gain.low, gain.high) == (0.0, 0.0, 0.0)


def test_noise_alone_is_not_taken_for_a_gain(base):
    noise = np.random.default_rng(1).normal(0.0, 0.3, len(base))
    gain = relative_gain(base, base + noise - noise.mean(), 2_000)
    assert gain.percent == pytest.approx(0, abs=1e-9)
    assert gain.low < 0 < gain.high


def test_a_known_shift_is_found_with_an_interval_around_it(base):
    other = 1.1 * base + np.random.default_rng(2).normal(0.0, 0.02, len(base))
    gain = relative_gain(base, other, 2_000)
    assert 8 < gain.low < 10 < gain.high < 12
    assert gain.percent == pytest.approx(100 * (other.mean() / base.mean() - 1))


def test_users_are_drawn_as_pairs(base):
    """Each user gains 10 %: unpaired resampling would make that uncertain, paired resampling can't."""
    gain = relative_gain(base, 1.1 * base, 500)
    assert gain.high - gain.low < 1e-9


def test_it_agrees_with_a_plain_loop_over_resamples(base):
    base = base[:60]
    other = base + np.random.default_rng(5).normal(0.05, 0.2, len(base))
    draw = np.random.default_rng(9)
    gains = []
    for _ in range(8_000):
        rows = draw.integers(0, len(base), len(base))
        gains.append(100 * (other[rows].mean() / base[rows].mean() - 1))
    gain = relative_gain(base, other, 8_000, seed=1)
    spread = np.std(gains)
    assert gain.low == pytest.approx(np.quantile(gains, 0.025), abs=0.1 * spread)
    assert gain.high == pytest.approx(np.quantile(gains, 0.975), abs=0.1 * spread)


def test_a_narrower_level_gives_a_narrower_interval(base):
    other = base + np.random.default_rng(1).normal(0.0, 0.3, len(base))
    wide, narrow = relative_gain(base, other, 1_000), relative_gain(base, other, 1_000, level=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_a_reference_without_a_single_hit_has_no_relative_gain():
    gain = relative_gain(np.zeros(5), np.ones(5), 100)
    assert all(math.isnan(value) for value in (gain.percent, gain.low, gain.high))


@pytest.mark.parametrize("resamples", [100, 1, 64, 65])
def test_any_number_of_resamples_is_possible(base, resamples):
    gain = relative_gain(base, 2 * base, resamples)
    assert gain.low == pytest.approx(100)


def test_several_metrics_share_their_resamples(base):
    draw = np.random.default_rng(2)
    metrics = {"a": base, "b": draw.random(len(base)), "no hit": np.zeros(len(base))}
    after = {name: values + draw.normal(0.1, 0.2, len(base)) for name, values in metrics.items()}
    for name, gain in relative_gains(metrics, after, 500).items():
        alone = relative_gain(metrics[name], after[name], 500)
        np.testing.assert_allclose((gain.percent, gain.low, gain.high), (alone.percent, alone.low, alone.high))


def test_where_the_reference_is_zero_in_some_resamples_the_interval_ends_nowhere(recwarn):
    base, other = np.zeros(200), np.zeros(200)
    base[:3], other[2:9] = 1.0, 1.0
    gain = relative_gain(base, other, 2_000)
    assert gain.percent == pytest.approx(100 * 4 / 3)
    assert gain.low > -100
    assert gain.high == math.inf
    assert not recwarn.list
