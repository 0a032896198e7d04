"""The vocabulary of what is known of items."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.students.item_features import Bags, item_features


def bags_of(bags: Bags) -> list[list[int]]:
    return [part.tolist() for part in np.split(bags.features, bags.offsets[1:-1])]


def test_features_come_by_frequency_then_by_text(shop: Any) -> None:
    found = item_features([shop], 1, 100)
    # blue, ink, nail, pen and red are in two titles each; glue and steel in one: red red ink has red once
    assert found["title"].size == 7
    assert bags_of(found["title"]) == [[3, 4], [0, 3], [1, 4], [], [0, 1], [5], [2, 6], [2], []]
    # acme 3, bolt 2, cup 1: case and blanks at the ends make no other brand
    assert bags_of(found["brand"]) == [[0], [0], [1], [], [1], [0], [], [2], []]
    # office 5, pens 2, tools 2, glue, ink, nails
    assert bags_of(found["categories"]) == [[0, 1], [0, 1], [0, 4], [0], [], [0, 3], [2], [2, 5], []]


def test_rare_features_and_those_beyond_the_most_frequent_are_left_out(shop: Any) -> None:
    assert bags_of(item_features([shop], 2, 100)["brand"]) == [[0], [0], [1], [], [1], [0], [], [], []]
    assert bags_of(item_features([shop], 1, 1)["categories"]) == [[0]] * 4 + [[], [0], [], [], []]


def test_a_field_of_which_nothing_is_known_is_no_field(make_corpus: Any) -> None:
    corpus = make_corpus([[0, 1, 0]], ["pen", "pen"])
    assert list(item_features([corpus], 1, 10)) == ["title"]
    assert item_features([corpus], 3, 10) == {}


def test_domains_share_one_vocabulary(make_corpus: Any) -> None:
    one = make_corpus([[0, 1, 0]], ["red pen", "pen"])
    other = make_corpus([[0, 0, 0]], ["blue pen"])
    assert bags_of(item_features([one, other], 1, 10)["title"]) == [[0, 2], [0], [0, 1]]
    assert bags_of(item_features([one, other], 2, 10)["title"]) == [[0], [0], [0]]


@pytest.mark.parametrize("text", ["", "   ", ",, ,"])
def test_a_text_without_content_has_no_features(make_corpus: Any, text: str) -> None:
    corpus = make_corpus([[0, 1, 0]], [text, "pen"], categories=["c", text])
    found = item_features([corpus], 1, 10)
    assert bags_of(found["title"]) == [[], [0]]
    assert bags_of(found["categories"]) == [[0], []]


@given(st.lists(st.none() | st.text(max_size=12), min_size=1, max_size=8), st.integers(1, 3), st.integers(1, 4))
def test_of_any_text_come_ascending_distinct_features_that_enough_items_have(
    make_corpus: Any, texts: list[str | None], least: int, most: int
) -> None:
    for found in item_features([make_corpus([[0, 0, 0]], texts, texts, texts)], least, most).values():
        lists = bags_of(found)
        assert len(lists) == len(texts)
        assert 1 <= found.size <= most
        assert all(row == sorted(set(row)) for row in lists)
        for feature in range(found.size):
            assert sum(feature in row for row in lists) >= least
