"""How far each precision moves a log-probability: the documented bounds hold, and the order is kept."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckd.storage.rounding import COARSEST, ROUNDINGS, STEP, round_bfloat16, round_fixed, round_float16, round_float32

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
LOGPROBS = st.floats(-32_768, 0)
ROUNDED = pytest.mark.parametrize("name", list(ROUNDINGS))


@given(st.lists(LOGPROBS, min_size=1))
def test_fixed_is_off_by_at_most_a_thousandth_whatever_the_value(values):
    exact = np.array(values)
    rounded = round_fixed(exact)
    assert rounded.dtype == np.float32
    assert (np.abs(rounded - exact) <= 2.0**-10).all()
    probability = np.exp(np.maximum(exact, -700))
    assert (np.abs(np.exp(np.maximum(rounded.astype(np.float64), -700)) - probability) <= 0.001 * probability).all()


@given(st.lists(LOGPROBS, min_size=1))
def test_fixed_gives_multiples_of_its_step_and_one_zero(values):
    rounded = round_fixed(np.array(values))
    assert (rounded.astype(np.float64) % STEP == 0).all()
    assert not np.signbit(rounded[rounded == 0]).any()


@given(st.lists(st.floats(-3e38, -32_768), min_size=1))
def test_fixed_is_float32_where_its_steps_are_finer_than_that(values):
    exact = np.array(values)
    assert (np.abs(round_fixed(exact) - exact) <= 2.0**-24 * np.abs(exact) + 2.0**-10).all()


def test_fixed_takes_the_nearest_step_and_of_two_the_even_one():
    steps = np.array([-0.4, -0.5, -0.6, -1.5, -2.5, -511.9])
    assert (round_fixed(steps * STEP) / np.float32(STEP)).tolist() == [0, 0, -1, -2, -2, -512]


@given(st.lists(FLOATS, min_size=1))
def test_float16_is_off_by_at_most_half_a_unit_and_values_beyond_its_range_are_clipped(values):
    exact = np.array(values, np.float32)
    rounded = round_float16(exact)
    assert rounded.dtype == np.float32
    np.testing.assert_array_equal(rounded, rounded.astype(np.float16).astype(np.float32))
    inside = np.clip(exact.astype(np.float64), -65504, 65504)
    assert (np.abs(rounded - inside) <= np.maximum(2.0**-11 * np.abs(inside), 2.0**-25)).all()


@given(st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=1))
def test_bfloat16_is_off_by_at_most_half_a_unit(values):
    exact = np.array(values, np.float32)
    rounded = round_bfloat16(exact)
    assert rounded.dtype == np.float32
    assert (rounded.view(np.uint32) & 0xFFFF == 0).all()
    error = np.abs(rounded.astype(np.float64) - exact)
    assert (error <= np.maximum(2.0**-8 * np.abs(exact.astype(np.float64)), 2.0**-134)).all()
    np.testing.assert_array_equal(rounded, torch.from_numpy(exact).bfloat16().float().numpy())


@given(st.lists(FLOATS, min_size=1))
def test_exact_keeps_every_bit_of_float32(values):
    exact = np.array(values, np.float32)
    assert round_float32(exact.astype(np.float64)).tobytes() == exact.tobytes()


@ROUNDED
@given(st.lists(st.floats(-60_000, 0), min_size=1))
def test_rounding_keeps_the_order_and_repeats_itself(name, values):
    rounding = ROUNDINGS[name]
    exact = np.sort(np.array(values))[::-1]
    rounded = rounding(exact)
    assert rounded.dtype == np.float32
    assert (np.diff(rounded) <= 0).all()
    np.testing.assert_array_equal(rounding(rounded), rounded)


@ROUNDED
@given(st.lists(st.floats(-60_000, -0.125), min_size=1))
def test_no_rounding_moves_more_than_what_comparisons_allow_for(name, values):
    exact = np.array(values)
    assert (np.abs(ROUNDINGS[name](exact) - exact) <= COARSEST * np.abs(exact)).all()
