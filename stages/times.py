"""Times of interactions as whole numbers, whatever form they have in the raw file.

Numbers are taken as they are, dates and datetimes become unix seconds (UTC unless they say otherwise). What
lies below one second, or one unit of a fractional number, is kept apart as a fraction: it decides the order
and is not stored. So a fractional time is stored rounded down, and no order is lost that float64 can tell.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ckd.stages.masks import Bools, as_bools

INTEGER = r"^\s*[+-]?\d{1,38}\s*$"
DECIMAL = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
ISO = (
    r"^\s*(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})"
    r"(?:[T ](?P<hour>\d{2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9})\d*)?)?"
    r"\s*(?P<zone>[Zz]|[+-]\d{2}(?::?\d{2})?)?)?\s*$"
)
UNITS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
INT64_END = 2.0**63
INT64 = np.iinfo(np.int64)


@dataclass(frozen=True)
class Times:
    """When N interactions happened.

    Attributes:
        whole: int64 [N], what is stored; 0 where not valid.
        fraction: float64 [N], in [0, 1), decides the order where ``whole`` is equal.
        valid: bool [N], false where the raw value is missing or no time.
    """

    whole: npt.NDArray[np.int64]
    fraction: npt.NDArray[np.float64]
    valid: Bools


def parse_times(column: pa.Array) -> Times | None:
    """Return the times of a column of numbers, strings, dates or timestamps; None for any other type."""
    kind = column.type
    if pa.types.is_null(kind):
        return _no_times(len(column))
    if pa.types.is_integer(kind):
        return _integers(column)
    if pa.types.is_decimal128(kind) and kind.scale == 0:
        return _wide_integers(column)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _floats(column.cast(pa.float64()))
    if pa.types.is_date(kind):
        return _timestamps(column.cast(pa.timestamp("s")))
    if pa.types.is_timestamp(kind):
        return _timestamps(column)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _distinct_strings(column)
    return None


def _no_times(n: int) -> Times:
    return Times(np.zeros(n, np.int64), np.zeros(n), np.zeros(n, bool))


def _integers(column: pa.Array) -> Times:
    valid = _validity(column)
    if pa.types.is_uint64(column.type):
        fits = pc.less_equal(column, pa.scalar(2**63 - 1, pa.uint64())).fill_null(False)
        valid &= as_bools(fits)
        column = pc.if_else(fits, column, pa.scalar(0, pa.uint64()))
    whole = column.cast(pa.int64()).fill_null(0).to_numpy()
    return Times(whole, np.zeros(len(column)), valid)


def _floats(column: pa.Array) -> Times:
    values = column.fill_null(np.nan).to_numpy(zero_copy_only=False)
    valid = (values >= -INT64_END) & (values < INT64_END)  # false for nan and for infinities
    values = np.where(valid, values, 0.0)
    whole = np.floor(values)
    return Times(whole.astype(np.int64), values - whole, valid)


def _timestamps(column: pa.Array) -> Times:
    per_second = UNITS_PER_SECOND[column.type.unit]
    ticks = column.cast(pa.int64()).fill_null(0).to_numpy()
    return Times(ticks // per_second, (ticks % per_second) / per_second, _validity(column))


def _distinct_strings(column: pa.Array) -> Times:
    """Parse each distinct string once: there are few of them where times are days."""
    encoded = column.dictionary_encode()
    distinct = _strings(encoded.dictionary.cast(pa.string()))
    rows = encoded.indices.fill_null(0).to_numpy()
    if len(encoded.dictionary) == 0:
        return _no_times(len(column))
    return Times(distinct.whole[rows], distinct.fraction[rows], distinct.valid[rows] & _validity(column))


def _strings(values: pa.Array) -> Times:
    """Integers exactly, then other numbers, then ISO 8601 dates; each row by the first that fits."""
    integer = _matches(values, INTEGER)
    decimal = _matches(values, DECIMAL) & ~integer
    iso = _matches(values, ISO)
    result = _no_times(len(values))
    for mask, parse in ((integer, _integer_strings), (decimal, _decimal_strings), (iso, _iso_strings)):
        if mask.any():
            part = parse(pc.utf8_trim_whitespace(values.filter(pa.array(mask))))
            result.whole[mask], result.fraction[mask], result.valid[mask] = (
                part.whole,
                part.fraction,
                part.valid,
            )
    return result


def _integer_strings(values: pa.Array) -> Times:
    return _wide_integers(pc.utf8_ltrim(values, "+"))


def _wide_integers(values: pa.Array) -> Times:
    wide = values.cast(pa.decimal128(38, 0))
    fits = pc.and_(pc.greater_equal(wide, INT64.min), pc.less_equal(wide, INT64.max))
    return _integers(pc.if_else(fits, wide, None).cast(pa.int64()))


def _decimal_strings(values: pa.Array) -> Times:
    return _floats(pc.utf8_ltrim(values, "+").cast(pa.float64()))


def _iso_strings(values: pa.Array) -> Times:
    fields = pc.extract_regex(values, ISO)
    part = {name: fields.field(name) for name in ("year", "month", "day", "hour", "minute", "second")}
    year, month, day, hour, minute, second = (_number(column) for column in part.values())
    months = (year - 1970) * 12 + month - 1
    first_day = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    month_end = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    offset, zone_valid = _zone_seconds(fields.field("zone"))
    valid = (month >= 1) & (month <= 12) & (day >= 1) & (first_day + day <= month_end)
    valid &= (hour < 24) & (minute < 60) & (second < 60) & zone_valid
    whole = (first_day + day - 1) * 86_400 + hour * 3_600 + minute * 60 + second - offset
    nanoseconds = _number(pc.utf8_rpad(fields.field("fraction"), 9, "0"))
    return Times(np.where(valid, whole, 0), nanoseconds / 1e9, valid)


def _zone_seconds(zone: pa.Array) -> tuple[npt.NDArray[np.int64], Bools]:
    digits = pc.utf8_rpad(pc.replace_substring_regex(zone, "[^0-9]", ""), 4, "0")
    hours, minutes = (
        _number(pc.utf8_slice_codeunits(digits, 0, 2)),
        _number(pc.utf8_slice_codeunits(digits, 2, 4)),
    )
    west = as_bools(pc.starts_with(zone, "-"))
    seconds = hours * 3_600 + minutes * 60
    return np.where(west, -seconds, seconds), (hours < 24) & (minutes < 60)


def _number(digits: pa.Array) -> npt.NDArray[np.int64]:
    """Return the integers of strings of digits, 0 where the group of the expression is empty."""
    numbers: npt.NDArray[np.int64] = pc.if_else(pc.equal(digits, ""), "0", digits).cast(pa.int64()).to_numpy()
    return numbers


def _matches(values: pa.Array, expression: str) -> Bools:
    return as_bools(pc.match_substring_regex(values, expression).fill_null(False))


def _validity(column: pa.Array) -> Bools:
    return as_bools(column.is_valid())
