"""Top-k and normaliser over the catalogue, against all scores sorted whole in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.precompute.search import search, top_k


def by_force(queries, vectors, target, k):
    """Every score, in float64; the order is by the score rounded to float32, then by code."""
    scores = (queries @ vectors.T).astype(np.float32)
    codes = np.arange(len(vectors))
    items = np.stack([np.lexsort((codes, -row)) for row in scores])
    exact = scores.astype(np.float64)
    shifted = exact - exact.max(1, keepdims=True)
    logsumexp = exact.max(1) + np.log(np.exp(shifted).sum(1))
    logprobs = exact - logsumexp[:, None]
    return {
        "items": items[:, :k],
        "scores": np.take_along_axis(scores, items[:, :k], 1),
        "logsumexp": logsumexp,
        "entropy": -(np.exp(logprobs) * logprobs).sum(1),
        "target_score": scores[np.arange(len(target)), target],
        "target_rank": 1 + (items == target[:, None]).argmax(1),
    }


def searched(queries, vectors, target, k, **blocks):
    found = search(torch.from_numpy(queries), torch.from_numpy(vectors), torch.from_numpy(target), k, **blocks)
    return {name: tensor.numpy() for name, tensor in vars(found).items()}


def assert_same(found, expected):
    for name in ("items", "scores", "target_score", "target_rank"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    for name in ("logsumexp", "entropy"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, atol=1e-12, err_msg=name)


@st.composite
def problems(draw):
    """Quarters of small whole numbers: their products are exact, and many scores are equal."""
    n, items, d = draw(st.integers(1, 6)), draw(st.integers(1, 14)), draw(st.integers(1, 3))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32)))
    queries = numbers.integers(-6, 7, (n, d)) / 4
    vectors = numbers.integers(-2, 3, (items, d)) / 4
    return queries, vectors, numbers.integers(0, items, n), draw(st.integers(1, items))


@given(problems(), st.integers(1, 15), st.integers(1, 7))
def test_search_equals_brute_force_whatever_the_blocks(problem, items_per_block, positions_per_block):
    blocks = {"items_per_block": items_per_block, "positions_per_block": positions_per_block}
    assert_same(searched(*problem, **blocks), by_force(*problem))


@pytest.mark.parametrize("items_per_block", [7, 64, 333, 1_000])
@pytest.mark.parametrize("positions_per_block", [9, 50, 130])
def test_blocks_change_nothing_for_a_catalogue_with_equal_items(items_per_block, positions_per_block):
    """Real numbers of the size of cosine / tau; items 300..599 repeat items 0..299, so every score of them is a tie."""
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(1_000, 48)).astype(np.float32).astype(np.float64)
    vectors[300:600] = vectors[:300]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = draw.normal(size=(130, 48)) * 2
    target = draw.integers(0, 1_000, 130)
    blocks = {"items_per_block": items_per_block, "positions_per_block": positions_per_block}
    assert_same(searched(queries, vectors, target, 20, **blocks), by_force(queries, vectors, target, 20))


def test_equal_items_stand_in_order_of_code_and_share_one_score():
    vectors = np.ones((9, 2))
    found = searched(np.ones((2, 2)), vectors, np.array([0, 8]), 4, items_per_block=2)
    assert found["items"].tolist() == [[0, 1, 2, 3]] * 2
    assert found["scores"].tolist() == [[2.0] * 4] * 2
    assert found["target_rank"].tolist() == [1, 9]
    np.testing.assert_allclose(found["entropy"], np.log(9), rtol=1e-15)


def test_a_catalogue_of_one_item_is_certain():
    found = searched(np.array([[3.0]]), np.array([[2.0]]), np.array([0]), 1)
    assert (found["items"].tolist(), found["target_rank"].tolist()) == ([[0]], [1])
    assert found["logsumexp"].tolist() == [6.0]
    assert found["entropy"].tolist() == [0.0]


def test_scores_far_apart_do_not_overflow():
    found = searched(np.array([[1.0]]), np.array([[-3e4], [3e4], [0.0]]), np.array([2]), 3, items_per_block=1)
    assert found["items"].tolist() == [[1, 2, 0]]
    assert found["logsumexp"].tolist() == [3e4]
    assert found["entropy"].tolist() == [0.0]


def test_no_positions_give_no_rows():
    found = searched(np.empty((0, 3)), np.ones((5, 3)), np.empty(0, np.int64), 2, items_per_block=2)
    assert found["items"].shape == found["scores"].shape == (0, 2)
    assert found["logsumexp"].shape == found["target_rank"].shape == (0,)


def test_the_types_are_those_of_the_label_columns():
    found = searched(np.ones((1, 2)), np.ones((3, 2)), np.array([1]), 2)
    assert {name: str(column.dtype) for name, column in found.items()} == {
        "items": "int32",
        "scores": "float32",
        "logsumexp": "float64",
        "entropy": "float64",
        "target_score": "float32",
        "target_rank": "int32",
    }


@given(st.data())
def test_top_k_takes_the_lower_column_of_equal_scores(data):
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 30))
    scores = np.random.default_rng(data.draw(st.integers(0, 2**32))).integers(0, 4, (rows, columns)).astype(np.float32)
    k = data.draw(st.integers(1, columns))
    values, found = top_k(torch.from_numpy(scores), k)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found.numpy(), expected)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(scores, expected, 1))
