"""Confidence, consistency, weights and gate against the formulas of design.md section 5, position by position."""

import math
from itertools import permutations
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckd.stages.distill.settings import PERSISTENCE, Confidence, Consistency, WeightingSettings
from ckd.stages.distill.weighting import confidence, consistency, pair_agreement, scaled_gate, weigh
from ckd.storage.labels import LabelBlock

N_ITEMS = 8
Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def block_of(probabilities: Any, target: Any, k: int) -> LabelBlock:
    """Labels of N positions from whole distributions [N, n_items]."""
    p = np.asarray(probabilities, np.float64)
    n = len(p)
    best = np.argsort(-p, axis=1, kind="stable")
    wanted = np.asarray(target)
    with np.errstate(divide="ignore"):
        logs = np.log(p)
    kept = np.take_along_axis(logs, best[:, :k], axis=1)
    return LabelBlock(
        user=np.zeros(n, np.int32),
        position=np.arange(1, n + 1, dtype=np.int32),
        split=np.zeros(n, np.int8),
        target=wanted.astype(np.int32),
        items=best[:, :k].astype(np.int32),
        logprobs=kept.astype(np.float32),
        logsumexp=np.zeros(n, np.float32),
        kept_mass=np.exp(kept).sum(axis=1).astype(np.float32),
        target_logprob=logs[np.arange(n), wanted].astype(np.float32),
        target_rank=(1 + np.argmax(best == wanted[:, None], axis=1)).astype(np.int32),
        entropy=-np.where(p > 0, p * np.where(p > 0, logs, 0), 0).sum(axis=1).astype(np.float32),
        state=None,
    )


def random_teachers(seed: int, present: list[list[bool]]) -> tuple[list[LabelBlock], list[Rows]]:
    """A teacher for each list: labels where it is present, in an order of rows of its own."""
    draw = np.random.default_rng(seed)
    blocks, rows = [], []
    for there in present:
        mine = np.flatnonzero(there)
        row = np.full(len(there), -1, np.int64)
        row[mine] = draw.permutation(len(mine))
        k = int(draw.integers(1, N_ITEMS + 1))
        blocks.append(block_of(draw.dirichlet(np.ones(N_ITEMS), len(mine)), draw.integers(0, N_ITEMS, len(mine)), k))
        rows.append(row)
    return blocks, rows


def reference_rbo(one: list[int], other: list[int], p: float) -> float:
    """The sum over all depths of (1 - p) p^(d - 1) times the agreement there, cut off where p^d is nothing.

    Behind its end the shorter list of s items is taken to go on agreeing in the share X_s / s, and behind the longer
    one's end the agreement is what it was there: what equation 32 sums up in closed form.
    """
    shorter, longer = sorted((one, other), key=len)
    s, end = len(shorter), len(longer)

    def agreement(depth: int) -> float:
        stored = len(set(shorter[:depth]) & set(longer[:depth]))
        if depth <= s:
            return stored / depth
        within = len(set(shorter) & set(longer[:s]))
        return (stored + within * (depth - s) / s) / depth

    total, weight, depth = 0.0, 1 - p, 1
    while weight > 1e-17:
        total += weight * agreement(min(depth, end))
        weight, depth = weight * p, depth + 1
    return total


def reference_agreement(
    left: LabelBlock, i: int, right: LabelBlock, j: int, measure: str, persistence: float = PERSISTENCE
) -> float:
    p = dict(zip(left.items[i].tolist(), np.exp(left.logprobs[i].astype(np.float64)), strict=True))
    q = dict(zip(right.items[j].tolist(), np.exp(right.logprobs[j].astype(np.float64)), strict=True))
    union = p.keys() | q.keys()
    if measure == "overlap":
        return float(sum(min(p.get(item, 0.0), q.get(item, 0.0)) for item in union))
    if measure == "rank_biased_overlap":
        return reference_rbo(left.items[i].tolist(), right.items[j].tolist(), persistence)
    return len(p.keys() & q.keys()) / len(union)


def reference_confidence(block: LabelBlock, row: int, measure: str) -> float:
    return {
        "target_probability": math.exp(block.target_logprob[row]),
        "target_rank": 1 / math.log2(1 + block.target_rank[row]),
        "certainty": 1 - float(block.entropy[row]) / math.log(N_ITEMS),
        "none": 1.0,
    }[measure]


def reference(
    blocks: list[LabelBlock], rows: list[Rows], at: int, settings: WeightingSettings
) -> tuple[dict[int, float], float]:
    """Weight of each teacher that has a label at one position, and the position's gate."""
    there = {teacher: int(row[at]) for teacher, row in enumerate(rows) if row[at] >= 0}
    c, s = {}, {}
    for teacher, row in there.items():
        c[teacher] = reference_confidence(blocks[teacher], row, settings.confidence)
        others = [
            reference_agreement(
                blocks[teacher], row, blocks[other], at_other, settings.consistency, settings.persistence
            )
            for other, at_other in there.items()
            if other != teacher
        ]
        s[teacher] = float(np.mean(others)) if others and settings.consistency != "none" else 1.0
    odds = {
        t: (max(c[t], 1e-12) * max(s[t], 1e-12) ** settings.consistency_power) ** (1 / settings.softness) for t in c
    }
    w = {t: value / sum(odds.values()) for t, value in odds.items()}
    gate = sum(w[t] * c[t] ** settings.gate_confidence * s[t] ** settings.gate_consistency for t in w)
    return w, gate


presences = st.integers(1, 3).flatmap(
    lambda teachers: st.integers(1, 6).flatmap(
        lambda positions: st.lists(
            st.lists(st.booleans(), min_size=positions, max_size=positions), min_size=teachers, max_size=teachers
        )
    )
)
exponents = st.sampled_from([0.0, 0.5, 1.0, 2.0])
options = st.builds(
    WeightingSettings,
    confidence=st.sampled_from(get_args(Confidence)),
    consistency=st.sampled_from(get_args(Consistency)),
    persistence=st.sampled_from([0.1, 0.5, 0.9, 0.98]),
    consistency_power=exponents,
    softness=st.sampled_from([0.5, 1.0, 3.0]),
    gate_confidence=exponents,
    gate_consistency=exponents,
)
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=150, deadline=None)
@given(seeds, presences, options)
def test_weights_and_gate_follow_the_formula_at_every_position(
    seed: int, present: list[list[bool]], option: WeightingSettings
) -> None:
    blocks, rows = random_teachers(seed, present)
    weights = weigh(blocks, rows, N_ITEMS, option)
    for at in range(len(rows[0])):
        w, gate = reference(blocks, rows, at, option)
        wanted = [w.get(teacher, 0.0) for teacher in range(len(blocks))]
        np.testing.assert_allclose(weights.teacher[:, at], wanted, rtol=1e-6, atol=1e-9)
        assert weights.gate[at] == pytest.approx(gate, rel=1e-6, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(seeds, presences, options)
def test_weights_sum_to_one_over_the_teachers_present_and_are_zero_elsewhere(
    seed: int, present: list[list[bool]], option: WeightingSettings
) -> None:
    weights = weigh(*random_teachers(seed, present), N_ITEMS, option)
    there = np.array(present)
    np.testing.assert_allclose(weights.teacher.sum(axis=0)[there.any(axis=0)], 1)
    for measured in (weights.teacher, weights.confidence, weights.consistency):
        assert not measured[~there].any()
    assert not weights.gate[~there.any(axis=0)].any()


@settings(max_examples=60, deadline=None)
@given(seeds, presences, options, st.integers(0, 2))
def test_where_a_teacher_is_missing_the_others_are_weighed_as_if_it_did_not_exist(
    seed: int, present: list[list[bool]], option: WeightingSettings, gone: int
) -> None:
    gone %= len(present)
    blocks, rows = random_teachers(seed, present)
    left = [teacher for teacher in range(len(blocks)) if teacher != gone]
    if not left:
        return
    whole = weigh(blocks, rows, N_ITEMS, option)
    without = weigh([blocks[t] for t in left], [rows[t] for t in left], N_ITEMS, option)
    missing = rows[gone] < 0
    np.testing.assert_allclose(whole.teacher[left][:, missing], without.teacher[:, missing])
    np.testing.assert_allclose(whole.gate[missing], without.gate[missing])


@settings(max_examples=30, deadline=None)
@given(seeds, presences, options)
def test_the_order_of_the_teachers_does_not_matter(
    seed: int, present: list[list[bool]], option: WeightingSettings
) -> None:
    blocks, rows = random_teachers(seed, present)
    first = weigh(blocks, rows, N_ITEMS, option)
    for order in permutations(range(len(blocks))):
        other = weigh([blocks[t] for t in order], [rows[t] for t in order], N_ITEMS, option)
        np.testing.assert_allclose(other.teacher, first.teacher[list(order)], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(other.gate, first.gate, rtol=1e-9, atol=1e-12)


HALF, QUARTER = [0.5, 0.25, 0.25, 0.0], [0.25, 0.25, 0.25, 0.25]


def test_confidence_by_hand() -> None:
    block = block_of([HALF, HALF, QUARTER], [0, 2, 3], k=2)
    np.testing.assert_allclose(confidence(block, 4, "target_probability"), [0.5, 0.25, 0.25], rtol=1e-6)
    # Ranks 1, 3 and 4.
    np.testing.assert_allclose(confidence(block, 4, "target_rank"), [1, 0.5, 1 / math.log2(5)])
    # Entropy of the first: 1/2 ln 2 + 1/2 ln 4 = 3/2 ln 2, of ln 4 = 2 ln 2.
    np.testing.assert_allclose(confidence(block, 4, "certainty"), [0.25, 0.25, 0], atol=1e-6)
    np.testing.assert_allclose(confidence(block, 4, "none"), [1, 1, 1])


def test_agreement_by_hand() -> None:
    # Stored: {0: .5, 1: .3}, {1: .6, 2: .2}, {3: .7, 2: .1}.
    blocks = [
        block_of([[0.5, 0.3, 0.1, 0.1]], [0], k=2),
        block_of([[0.1, 0.6, 0.2, 0.1]], [0], k=2),
        block_of([[0.1, 0.1, 0.1, 0.7]], [0], k=3),
    ]
    row = np.zeros(1, np.int64)
    first, second, third = blocks
    assert third.items[0].tolist() == [3, 0, 1]
    overlap = [
        pair_agreement(one, row, other, row, "overlap").item()
        for one, other in ((first, second), (first, third), (second, third))
    ]
    np.testing.assert_allclose(overlap, [0.3, 0.1 + 0.1, 0.1], rtol=1e-6)
    jaccard = [
        pair_agreement(one, row, other, row, "top_k_jaccard").item()
        for one, other in ((first, second), (first, third), (second, third))
    ]
    np.testing.assert_allclose(jaccard, [1 / 3, 2 / 3, 1 / 4])
    means = consistency(blocks, [row] * 3, "overlap")[:, 0]
    np.testing.assert_allclose(means, [(0.3 + 0.2) / 2, (0.3 + 0.1) / 2, (0.2 + 0.1) / 2], rtol=1e-6)


@pytest.mark.parametrize("measure", get_args(Consistency))
def test_consistency_is_one_where_only_one_teacher_has_a_label(measure: Consistency) -> None:
    blocks, _ = random_teachers(3, [[True, True], [True, True]])
    alone = [np.array([0, 1]), np.array([-1, -1])]
    np.testing.assert_array_equal(consistency(blocks, alone, measure)[0], [1, 1])
    np.testing.assert_array_equal(consistency(blocks[:1], alone[:1], measure), [[1, 1]])


def in_this_order(*lists: list[int]) -> LabelBlock:
    """Labels that store these items of each position, best first."""
    p = np.zeros((len(lists), 12))
    for row, items in zip(p, lists, strict=True):
        row[items] = np.arange(len(items), 0, -1)
    return block_of(p / p.sum(1, keepdims=True), [0] * len(lists), k=len(lists[0]))


def agreed(one: LabelBlock, other: LabelBlock, persistence: float) -> Array:
    row = np.arange(len(one))
    return pair_agreement(one, row, other, row, "rank_biased_overlap", persistence)


def test_rank_biased_overlap_by_hand() -> None:
    # Agreement at depths 1, 2, 3: 0, 1, 2/3, which goes on for ever; p = 1/2.
    found = agreed(in_this_order([0, 1, 2]), in_this_order([1, 0, 3]), 0.5)
    np.testing.assert_allclose(found, 0.5 * 0 + 0.25 * 1 + 0.125 * 2 / 3 + 0.125 * 2 / 3)
    # [0] against [0, 1]: the one item agrees, so behind its end the shorter list is taken to agree wholly.
    np.testing.assert_allclose(agreed(in_this_order([0]), in_this_order([0, 1]), 0.5), 1)
    # [1] against [0, 1]: nothing at depth 1, 1/2 from depth 2 on, where the second item is known to be shared.
    np.testing.assert_allclose(agreed(in_this_order([1]), in_this_order([0, 1]), 0.5), 0.5 * 0 + 0.5 * 1 / 2)


def test_rank_biased_overlap_tells_an_exchange_at_the_top_from_one_at_the_end() -> None:
    plain = in_this_order([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    exchanged = in_this_order([1, 0, 2, 3, 4], [0, 1, 2, 4, 3])
    top, end = agreed(plain, exchanged, 0.9)
    assert top < end < 1
    np.testing.assert_allclose(pair_agreement(plain, np.arange(2), exchanged, np.arange(2), "top_k_jaccard"), 1)
    # The less persistent, the less counts what stands further down.
    assert agreed(plain, exchanged, 0.5)[0] < top
    assert agreed(plain, exchanged, 0.5)[1] > end


@given(st.integers(1, 6), st.integers(0, 5), st.floats(0.01, 0.99), seeds)
def test_rank_biased_overlap_is_one_of_lists_that_agree_as_far_as_both_go_and_zero_of_strangers(
    shorter: int, more: int, persistence: float, seed: int
) -> None:
    items = np.random.default_rng(seed).permutation(12).tolist()
    one, other = in_this_order(items[:shorter]), in_this_order(items[: shorter + more])
    np.testing.assert_allclose(agreed(one, other, persistence), 1)
    assert not agreed(one, in_this_order(items[shorter : shorter + 1 + more]), persistence).any()


@given(seeds, st.sampled_from([measure for measure in get_args(Consistency) if measure != "none"]))
def test_agreement_is_symmetric_and_lies_between_zero_and_one(seed: int, measure: Consistency) -> None:
    (left, right), (i, j) = random_teachers(seed, [[True] * 4, [True] * 4])
    there = pair_agreement(left, i, right, j, measure)
    back = pair_agreement(right, j, left, i, measure)
    np.testing.assert_allclose(there, back)
    assert there.min() >= 0
    assert there.max() <= 1


@given(seeds)
def test_whole_distributions_that_are_identical_overlap_fully(seed: int) -> None:
    p = np.random.default_rng(seed).dirichlet(np.ones(N_ITEMS), 3)
    block, row = block_of(p, [0, 1, 2], k=N_ITEMS), np.arange(3)
    np.testing.assert_allclose(pair_agreement(block, row, block, row, "overlap"), 1, atol=1e-6)
    np.testing.assert_allclose(pair_agreement(block, row, block, row, "top_k_jaccard"), 1)
    np.testing.assert_allclose(pair_agreement(block, row, block, row, "rank_biased_overlap"), 1)


def test_teachers_that_share_no_stored_item_do_not_agree_at_all() -> None:
    blocks = [block_of([[0.9, 0.1, 0, 0]], [0], k=1), block_of([[0.1, 0.9, 0, 0]], [0], k=1)]
    row = np.zeros(1, np.int64)
    weights = weigh(blocks, [row, row], 4, WeightingSettings())
    assert weights.consistency[:, 0].tolist() == [0, 0]
    # Equally inconsistent: only confidence, 0.9 against 0.1, tells them apart.
    np.testing.assert_allclose(weights.teacher[:, 0], [0.9, 0.1], rtol=1e-6)
    assert weights.gate[0] == 0


def test_two_teachers_by_hand() -> None:
    blocks = [block_of([[0.6, 0.4]], [0], k=2), block_of([[0.2, 0.8]], [0], k=2)]
    row = np.zeros(1, np.int64)
    weights = weigh(blocks, [row, row], 2, WeightingSettings(gate_confidence=1))
    # Overlap 0.2 + 0.4 on both sides; confidence 0.6 and 0.2.
    np.testing.assert_allclose(weights.teacher[:, 0], [0.75, 0.25], rtol=1e-6)
    np.testing.assert_allclose(weights.gate, [0.6 * (0.75 * 0.6 + 0.25 * 0.2)], rtol=1e-6)


def test_without_its_confidence_power_the_gate_is_the_consistency() -> None:
    blocks = [block_of([[0.6, 0.4]], [0], k=2), block_of([[0.2, 0.8]], [0], k=2)]
    row = np.zeros(1, np.int64)
    np.testing.assert_allclose(
        weigh(blocks, [row, row], 2, WeightingSettings(gate_confidence=0)).gate, [0.6], rtol=1e-6
    )


@given(st.lists(st.tuples(st.floats(0.001, 1), st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_the_gate_has_mean_one_over_the_labelled_positions_that_are_served(
    positions: list[tuple[float, bool, bool]],
) -> None:
    gate = np.array([value if labelled else 0.0 for value, labelled, _ in positions])
    labelled, served = (np.array([row[column] for row in positions]) for column in (1, 2))
    scaled = scaled_gate(gate, served & labelled)
    if (labelled & served).any():
        assert scaled[labelled & served].mean() == pytest.approx(1)
        # All are scaled alike.
        np.testing.assert_allclose(scaled * gate[labelled & served].mean(), gate, rtol=1e-9)
    else:
        np.testing.assert_array_equal(scaled, gate)


def test_a_labelled_position_with_gate_zero_counts_in_the_mean() -> None:
    labelled = np.array([True, True, False])
    np.testing.assert_allclose(scaled_gate(np.array([0.0, 0.5, 0.0]), labelled), [0, 2, 0])


def test_gates_that_are_all_zero_stay_zero() -> None:
    np.testing.assert_array_equal(scaled_gate(np.zeros(3), np.ones(3, bool)), np.zeros(3))
