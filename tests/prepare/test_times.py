"""Times in every form that raw files have."""

import datetime as dt
import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.times import parse_times

UTC = dt.UTC
NOON = int(dt.datetime(2014, 5, 1, 12, 30, tzinfo=UTC).timestamp())
DAY = NOON - 45_000


def wholes(column):
    """Return what is stored, None where the row is rejected."""
    times = parse_times(column)
    return [int(whole) if valid else None for whole, valid in zip(times.whole, times.valid, strict=True)]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([NOON, None], pa.int64()),
        pa.array([NOON, None], pa.uint64()),
        pa.array([NOON, None], pa.uint32()),
        pa.array([float(NOON), None], pa.float64()),
        pa.array([NOON + 0.75, math.nan]),
        pa.array([NOON, None]).cast(pa.decimal128(20, 0)),
        pa.array([str(NOON), ""]),
        pa.array([f" +{NOON}.5", None], pa.large_string()),
        pa.array(["2014-05-01T12:30", "2014-05-01T"]),
        pa.array(["2014-05-01 14:30:00.25 +02:00", "2014-02-30"]),
        *(pa.array([NOON, None], pa.timestamp("s")).cast(pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")),
        pa.array([dt.datetime(2014, 5, 1, 12, 30), None]),
        pa.array([NOON, None], pa.timestamp("s", tz="Europe/Berlin")),
    ],
    ids=lambda column: str(column.type),
)
def test_every_type_means_the_same_moment(column):
    assert wholes(column) == [NOON, None]


@pytest.mark.parametrize(
    "column",
    [pa.array([dt.date(2014, 5, 1)]), pa.array([dt.date(2014, 5, 1)]).cast(pa.date64()), pa.array(["2014-05-01"])],
    ids=lambda column: str(column.type),
)
def test_a_date_is_its_midnight(column):
    assert wholes(column) == [DAY]


def test_whole_decimals_are_exact():
    nanoseconds = 2**60 + 1
    column = pa.array([Decimal(nanoseconds), None, Decimal(10**30)], pa.decimal128(38, 0))
    assert wholes(column) == [nanoseconds, None, None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("007", 7),
        ("-3", -3),
        ("-3.5", -4),
        ("1e3", 1000),
        (".5", 0),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", None),
        ("1" * 50, None),
        ("1e999", None),
        ("nan", None),
        ("inf", None),
        ("1,5", None),
        ("0x10", None),
        ("٣", None),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00+0100", -3600),
        ("1970-01-01T00:00:00-01", 3600),
        ("1969-12-31T23:59:59.5Z", -1),
        ("2000-02-29", 951_782_400),
        ("1900-02-29", None),
        ("2014-13-01", None),
        ("2014-00-01", None),
        ("2014-05-00", None),
        ("2014-05-01T24:00", None),
        ("2014-05-01T12:60", None),
        ("2014-05-01T12:30:60", None),
        ("2014-05-01T12:30+25:00", None),
        ("2014-5-1", None),
        ("01/05/2014", None),
        ("2014-05-01 noon", None),
        ("   ", None),
    ],
)
def test_strings(text, expected):
    assert wholes(pa.array([text])) == [expected]


def test_a_column_may_mix_forms_row_by_row():
    assert wholes(pa.array(["5", "x", "1970-01-02", None, "6.5", "5"])) == [5, None, 86_400, None, 6, 5]


def test_floats_outside_the_range_and_not_finite_are_no_times():
    assert wholes(pa.array([math.inf, -math.inf, math.nan, 1e30, -1e30, 1e18])) == [None] * 5 + [10**18]
    assert wholes(pa.array([2**63 - 1, 2**63, None], pa.uint64())) == [2**63 - 1, None, None]


def test_nothing_and_other_types():
    assert wholes(pa.nulls(2)) == [None, None]
    assert wholes(pa.array([], pa.string())) == []
    assert wholes(pa.array([None], pa.string())) == [None]
    assert parse_times(pa.array([True])) is None
    assert parse_times(pa.array([dt.timedelta(1)])) is None


@given(st.lists(st.floats(-1e9, 1e9)))
def test_fractions_keep_the_order(values):
    for column in (pa.array(values, pa.float64()), pa.array([repr(value) for value in values], pa.string())):
        times = parse_times(column)
        assert np.all((times.fraction >= 0) & (times.fraction <= 1))
        by_parts = np.lexsort((times.fraction, times.whole))
        ordered = np.array(values, dtype=float)[by_parts]
        assert np.all(np.diff(ordered) >= -1e-9)


@given(st.lists(st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30)), min_size=1))
def test_datetimes_agree_with_their_strings(moments):
    arrow = parse_times(pa.array(moments, pa.timestamp("us")))
    text = parse_times(pa.array([moment.isoformat() for moment in moments]))
    assert text.valid.all()
    np.testing.assert_array_equal(arrow.whole, text.whole)
    np.testing.assert_allclose(arrow.fraction, text.fraction, rtol=0, atol=1e-12)
    assert arrow.whole[0] == math.floor(moments[0].replace(microsecond=0, tzinfo=UTC).timestamp())
