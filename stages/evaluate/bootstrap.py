"""Paired bootstrap over users (Efron and Tibshirani 1993, chapter 16): is the difference more than luck?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_CHUNK = 64


@dataclass(frozen=True)
class Gain:
    """A relative difference in percent, with its percentile interval."""

    percent: float
    low: float
    high: float


def relative_gain(
    base: npt.NDArray[np.float64],
    other: npt.NDArray[np.float64],
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Gain:
    """Return how much better ``other`` is than ``base``, in percent of the mean of ``base``.

    Both are measured on the same users; users are drawn with replacement, both values of a user together.

    Args:
        base: float64 [n_users], one metric of the reference.
        other: float64 [n_users], the same metric of the same users.
        resamples: number of resamples.
        seed: of the resampling.
        level: coverage of the interval.

    Returns:
        NaN throughout where the reference is zero on all users.
    """
    if not base.any():
        return Gain(float("nan"), float("nan"), float("nan"))
    pairs = np.stack([base, other])
    draw = np.random.default_rng(seed)
    gains = np.empty(resamples)
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        weights = draw.multinomial(len(base), np.full(len(base), 1 / len(base)), size=size)
        base_sums, other_sums = pairs @ weights.T
        with np.errstate(divide="ignore", invalid="ignore"):
            gains[start : start + size] = other_sums / base_sums - 1
    low, high = np.nanquantile(gains, [(1 - level) / 2, (1 + level) / 2])
    return Gain(100 * (other.mean() / base.mean() - 1), 100 * float(low), 100 * float(high))
