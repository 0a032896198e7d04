"""The k-core, against its definition and against every subset of small graphs."""

from collections import Counter
from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.prepare.core import k_core


def pairs(codes, most):
    return st.lists(st.tuples(st.integers(0, codes), st.integers(0, codes)), max_size=most)


def core_of(edges, k, user_k=None):
    users, items = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    return k_core(users, items, k, user_k)


def fits(edges, k, user_k):
    users, items = Counter(user for user, _ in edges), Counter(item for _, item in edges)
    return all(users[user] >= user_k and items[item] >= k for user, item in edges)


@given(pairs(9, 200), st.integers(1, 5), st.integers(1, 5))
def test_everyone_left_has_enough(edges, k, user_k):
    mask = core_of(edges, k, user_k)
    assert fits([edge for edge, kept in zip(edges, mask, strict=True) if kept], k, user_k)


@given(pairs(4, 10), st.integers(1, 3), st.integers(1, 3))
def test_no_larger_part_fits(edges, k, user_k):
    mask = core_of(edges, k, user_k)
    for size in range(len(edges) + 1):
        for rows in combinations(range(len(edges)), size):
            if fits([edges[row] for row in rows], k, user_k):
                assert mask[list(rows)].all(), "every part that fits lies within the core"


def test_interactions_are_counted_not_distinct_pairs():
    assert core_of([(0, 0), (0, 0), (1, 0)], k=2).tolist() == [True, True, False]


def test_dropping_one_may_unravel_all():
    chain = [(row, row + shift) for row in range(50) for shift in (0, 1)]
    assert not core_of(chain, k=2).any()
    assert core_of([*chain, (50, 50), (50, 0)], k=2).all(), "a ring holds"


def test_no_interactions():
    assert core_of([], k=5).tolist() == []
