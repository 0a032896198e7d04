"""Confidence, consistency, and how they weigh teachers and positions (instance-level integration of CKD-MDSR,
arXiv 2401.00797; the formulas are our reading)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from ckd.stages.distill.settings import PERSISTENCE, Confidence, Consistency, WeightingSettings
from ckd.storage.labels import LabelBlock

Float64s = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_TINY = 1e-12
_AT_A_TIME = 1_024
"""Positions whose stored items are compared at once: labels may be larger than memory."""


@dataclass(frozen=True)
class Weights:
    """What each teacher's opinion counts at each of N positions.

    Attributes:
        teacher: float64 [P, N], w_p; sums to one over the teachers present, zero where a teacher has no label.
        gate: float64 [N], g before it is scaled to mean 1; zero where no teacher has a label.
        confidence, consistency: float64 [P, N], c_p and s_p; zero where a teacher has no label.
    """

    teacher: Float64s
    gate: Float64s
    confidence: Float64s
    consistency: Float64s


def weigh(labels: Sequence[LabelBlock], rows: Sequence[Rows], n_items: int, settings: WeightingSettings) -> Weights:
    """Weigh P teachers at N positions.

    Args:
        labels: of each teacher.
        rows: int64 [N] for each teacher: row of its labels at each position, -1 where it has none.
        n_items: size of the catalogue.
        settings: measures and exponents.
    """
    present = np.stack([row >= 0 for row in rows])
    c = np.stack(
        [_spread(confidence(block, n_items, settings.confidence), row) for block, row in zip(labels, rows, strict=True)]
    )
    s = consistency(labels, rows, settings.consistency, settings.persistence)
    strength = np.log(c.clip(_TINY)) + settings.consistency_power * np.log(s.clip(_TINY))
    strength = np.where(present, strength / settings.softness, -np.inf)
    best = strength.max(0, where=present, initial=-np.inf)
    odds = np.where(present, np.exp(strength - np.where(np.isfinite(best), best, 0.0)), 0.0)
    teacher = odds / np.maximum(odds.sum(0), _TINY)
    gate = (teacher * c**settings.gate_confidence * s**settings.gate_consistency).sum(0)
    return Weights(teacher, gate, np.where(present, c, 0.0), np.where(present, s, 0.0))


def confidence(block: LabelBlock, n_items: int, measure: Confidence) -> Float64s:
    """Return how sure a teacher is at each of its positions, in [0, 1]."""
    if measure == "target_probability":
        return np.exp(block.target_logprob.astype(np.float64))
    if measure == "target_rank":
        return 1 / np.log2(1.0 + block.target_rank)
    if measure == "certainty":
        return (1 - block.entropy.astype(np.float64) / np.log(n_items)).clip(0, 1)
    return np.ones(len(block))


def consistency(
    labels: Sequence[LabelBlock], rows: Sequence[Rows], measure: Consistency, persistence: float = PERSISTENCE
) -> Float64s:
    """Return how much each teacher agrees with the others, float64 [P, N], in [0, 1].

    It is the mean over the other teachers that have a label at the position, and 1 where there is none.
    """
    total = np.zeros((len(labels), len(rows[0])))
    others = np.zeros_like(total)
    for p, q in combinations(range(len(labels)), 2):
        both = np.flatnonzero((rows[p] >= 0) & (rows[q] >= 0))
        if measure == "none" or not len(both):
            continue
        for at in range(0, len(both), _AT_A_TIME):
            here = both[at : at + _AT_A_TIME]
            agreement = pair_agreement(labels[p], rows[p][here], labels[q], rows[q][here], measure, persistence)
            total[p, here] += agreement
            total[q, here] += agreement
        others[[[p], [q]], both] += 1
    return np.where(others > 0, total / np.maximum(others, 1), 1.0)


def pair_agreement(
    left: LabelBlock,
    left_rows: Rows,
    right: LabelBlock,
    right_rows: Rows,
    measure: Consistency,
    persistence: float = PERSISTENCE,
) -> Float64s:
    """Return the agreement of two teachers at N positions, float64 [N].

    ``overlap`` is sum_v min(p(v), q(v)) on the items that both stored; one that only one of them stored counts as
    zero, which makes it a lower bound of that on all items. ``top_k_jaccard`` is the Jaccard index of the stored items.
    ``rank_biased_overlap`` is RBO_ext of the stored items' order, see :func:`depth_weights`.
    """
    n, shift = len(left_rows), np.int64(1) << 32
    at = np.arange(n, dtype=np.int64)[:, None] * shift
    left_keys, right_keys = at + left.items[left_rows], at + right.items[right_rows]
    common, i, j = np.intersect1d(left_keys, right_keys, assume_unique=True, return_indices=True)
    position = common // shift
    if measure == "top_k_jaccard":
        shared = np.bincount(position, minlength=n)
        return shared / (left.k + right.k - shared)
    if measure == "rank_biased_overlap":
        # An item is in both lists from the deeper of its two ranks on.
        depth = np.maximum(i % left.k, j % right.k)
        weight = depth_weights(min(left.k, right.k), max(left.k, right.k), persistence)
        return np.bincount(position, weights=weight[depth], minlength=n).clip(0, 1)
    p = left.logprobs[left_rows].ravel()[i].astype(np.float64)
    q = right.logprobs[right_rows].ravel()[j].astype(np.float64)
    return np.bincount(position, weights=np.exp(np.minimum(p, q)), minlength=n).clip(0, 1)


def depth_weights(shorter: int, longer: int, persistence: float) -> Float64s:
    """Return what an item adds to the rank-biased overlap by the depth that both lists have it at, float64 [longer].

    RBO_ext of two lists of s and l >= s items (Webber, Moffat and Zobel 2010, "A similarity measure for indefinite
    rankings", equation 32) extrapolates the agreement at the end of each list to infinite depth, so that equal lists
    have 1 whatever their length:

        (1 - p) / p (sum_{d=1..l} X_d / d p^d + sum_{d=s+1..l} X_s (d - s) / (s d) p^d)
        + ((X_l - X_s) / l + X_s / s) p^l

    It is linear in the overlaps X_d, the number of items that both have within depth d (the shorter one has no more
    than s), and an item counts in all X_d from its own depth on.

    Args:
        shorter, longer: s and l, at least 1.
        persistence: p, between 0 and 1.
    """
    d = np.arange(1, longer + 1, dtype=np.float64)
    decay = (1 - persistence) * persistence ** (d - 1)
    weights = np.cumsum((decay / d)[::-1])[::-1] + persistence**longer / longer
    beyond = (decay * (d - shorter) / (shorter * d))[shorter:].sum()
    weights[:shorter] += beyond + persistence**longer * (1 / shorter - 1 / longer)
    return weights


def scaled_gate(gate: Float64s, counted: npt.NDArray[np.bool_]) -> Float64s:
    """Return the gate scaled to mean 1 over some positions: the labelled ones that an epoch serves.

    A labelled position counts even if its own gate is zero. A gate that is zero on all of them stays as it is.
    """
    mean = gate[counted].mean() if counted.any() else 0.0
    return gate / mean if mean > 0 else gate


def _spread(values: Float64s, rows: Rows) -> Float64s:
    spread = np.ones(len(rows))
    spread[rows >= 0] = values[rows[rows >= 0]]
    return spread
