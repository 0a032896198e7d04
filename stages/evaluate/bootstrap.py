"""Paired bootstrap over users (Efron and Tibshirani 1993, chapter 16): is the difference more than luck?"""

from collections.abc import Mapping
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


Values = npt.NDArray[np.float64]


def relative_gain(
    base: Values,
    other: Values,
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
        NaN throughout where the reference is zero on all users. Where few users count, it is so in some resamples too:
        infinitely better, which is where the interval then may end.
    """
    return relative_gains({"": base}, {"": other}, resamples, seed, level)[""]


def relative_gains(
    base: Mapping[str, Values],
    other: Mapping[str, Values],
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Gain]:
    """Return :func:`relative_gain` of several metrics of the same users, all from the same resamples."""
    before, after = np.stack(list(base.values())), np.stack([other[name] for name in base])
    users = before.shape[1]
    draw = np.random.default_rng(seed)
    gains = np.empty((resamples, len(before)))
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        weights = draw.multinomial(users, np.full(users, 1 / users), size=size).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            gains[start : start + size] = (weights @ after.T) / (weights @ before.T) - 1
    found = zip(base, before.mean(1), after.mean(1), gains.T, strict=True)
    return {name: _gain(reference, value, drawn, level) for name, reference, value, drawn in found}


def _gain(base: float, other: float, drawn: Values, level: float) -> Gain:
    if not base:
        return Gain(float("nan"), float("nan"), float("nan"))
    with np.errstate(invalid="ignore"):  # between a number and infinity numpy finds none
        low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Gain(100 * (other / base - 1), 100 * float(low), float("inf") if np.isnan(high) else 100 * float(high))
