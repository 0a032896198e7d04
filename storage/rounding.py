"""How stored log-probabilities are rounded, and by how much that moves them.

Every rounding gives float32 values whose low mantissa bits are zero: BYTE_STREAM_SPLIT and zstd then store them in a
byte or so, and every reader of Parquet still sees plain floats. All keep the order (what is not above something else
is not above it afterwards) and change nothing a second time.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

STEP = 2.0**-9
"""Of ``fixed``, in nats. On the bundled labels the finest power of two with which a pair takes 2.5 bytes at most at
k = 100 (`benchmarks/storage/storage.py`)."""
COARSEST = 2.0**-7
"""Relative error that no rounding passes where a log-probability is -1/8 or less: twice what bfloat16 may lose."""

Floats = npt.NDArray[np.float32]


def round_fixed(values: npt.NDArray[np.floating]) -> Floats:
    """Round to the nearest multiple of 1/512 (ties to even), typed float32.

    The error is at most 1/1024, whatever the value: a probability is off by a thousandth of itself. A value below
    -32,768, whose probability no float knows, is rounded to float32 besides.
    """
    steps = np.rint(np.asarray(values, np.float64) / STEP)
    # Of the two zeros one, so that equal values are equal bytes.
    return (steps * STEP + 0.0).astype(np.float32)


def round_float16(values: npt.NDArray[np.floating]) -> Floats:
    """Round to float16 precision, typed float32.

    The error is at most 2^-11 of the value: 0.004 for a log-probability of -8 to -16. Values beyond float16's
    range are clipped to it.
    """
    limit = float(np.finfo(np.float16).max)
    return np.clip(values, -limit, limit).astype(np.float16).astype(np.float32)


def round_bfloat16(values: npt.NDArray[np.floating]) -> Floats:
    """Round to bfloat16 precision (nearest, ties to even), typed float32.

    The error is at most 2^-8 of the value: 0.03 for a log-probability of -8.
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


def round_float32(values: npt.NDArray[np.floating]) -> Floats:
    """Return float32, bit for bit what it was if it is float32 already: 2^-24 of the value at most."""
    return values.astype(np.float32)


ROUNDINGS: Mapping[str, Callable[[npt.NDArray[Any]], Floats]] = {
    "fixed": round_fixed,
    "exact": round_float32,
    "float16": round_float16,
    "bfloat16": round_bfloat16,
}
"""``labels.precision`` to the rounding of stored log-probabilities."""
