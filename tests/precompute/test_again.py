"""How far labels agree: differences that are put in are the differences that are found."""

from dataclasses import replace

import numpy as np
import pytest

from ckd.stages.precompute.again import COARSE, FINE, FLIPPED, agreement
from ckd.storage.labels import LabelBlock

N, K, D = 40, 5, 3
TABLES = (np.ones((7, D), np.float32),)


@pytest.fixture
def block():
    draw = np.random.default_rng(0)
    return LabelBlock(
        user=np.repeat(np.arange(N // 4, dtype=np.int32), 4),
        position=np.tile(np.arange(1, 5, dtype=np.int32), N // 4),
        split=np.zeros(N, np.int8),
        target=draw.integers(0, 9, N).astype(np.int32),
        items=draw.permuted(np.tile(np.arange(K, dtype=np.int32), (N, 1)), axis=1),
        logprobs=-np.sort(draw.exponential(4, (N, K)).astype(np.float32)),
        logsumexp=draw.normal(size=N).astype(np.float32),
        kept_mass=np.ones(N, np.float32),
        target_logprob=-np.ones(N, np.float32),
        target_rank=np.ones(N, np.int32),
        entropy=np.ones(N, np.float32),
        state=draw.normal(size=(N, D)).astype(np.float32),
    )


def changed(block, name, place, value):
    column = vars(block)[name].copy()
    column[place] = value
    return replace(block, **{name: column})


def test_the_same_labels_agree_on_every_bit(block):
    found = agreement(block, block.take(np.arange(N)[::-1]), TABLES, TABLES)
    assert (found.positions, found.unmatched, found.identical, found.off) == (N, 0, 1.0, 0.0)
    assert (found.items, found.ranks, found.states, found.vectors) == (0.0, 0.0, 0.0, 0.0)
    assert found.holds("float16", same_machine=True)


@pytest.mark.parametrize(
    ("name", "place", "value", "seen", "expected"),
    [
        ("logprobs", (3, 1), -50.0, "logprobs", None),
        ("target_logprob", 3, -1.25, "logprobs", 0.25),
        ("logsumexp", 3, 100.0, "logsumexp", None),
        ("state", (3, 2), 9.0, "states", None),
        ("target_rank", 3, 2, "ranks", 1 / N),
        ("items", (3, 1), 99, "items", 1 / N),
    ],
)
def test_one_changed_number_is_found_where_it_is(block, name, place, value, seen, expected):
    found = agreement(block, changed(block, name, place, value), TABLES, TABLES)
    if expected is None:
        expected = abs(float(np.float32(value)) - float(vars(block)[name][place]))
    assert vars(found)[seen] == pytest.approx(expected, rel=1e-12)
    others = {"logprobs", "logsumexp", "states", "ranks", "items", "vectors"} - {seen}
    assert {vars(found)[other] for other in others} == {0.0}
    assert found.identical == 1 - 1 / N
    assert not found.holds("float16", same_machine=True)


@pytest.mark.parametrize("name", ["entropy", "kept_mass", "split", "target"])
def test_no_column_may_differ_where_the_labels_were_computed(block, name):
    found = agreement(block, changed(block, name, 3, 0 if name != "split" else 1), TABLES, TABLES)
    assert found.identical < 1 or vars(block)[name][3] == 0
    assert not found.holds("float16", same_machine=True) or vars(block)[name][3] == 0


def test_elsewhere_numbers_may_be_off_by_rounding_and_not_by_more(block):
    for precision, bound in (("fixed", FINE), ("float16", FINE), ("exact", FINE), ("bfloat16", COARSE["bfloat16"])):
        for factor, holds in ((0.9, True), (1.1, False)):
            old = float(block.logprobs[3, 4])
            value = old - factor * bound * max(abs(old), 1)
            found = agreement(block, changed(block, "logprobs", (3, 4), value), TABLES, TABLES)
            assert found.holds(precision, same_machine=False) is holds


def test_elsewhere_few_positions_may_have_other_items_or_ranks(block):
    few = int(FLIPPED * N)
    for name in ("items", "target_rank"):
        for rows, holds in ((few, True), (few + 1, False)):
            place = (np.arange(rows), 0) if name == "items" else np.arange(rows)
            found = agreement(block, changed(block, name, place, 99), TABLES, TABLES)
            assert found.holds("float16", same_machine=False) is holds


def test_a_position_that_one_of_them_lacks_is_never_tolerated(block):
    found = agreement(block, block.take(np.arange(N - 1)), TABLES, TABLES)
    assert (found.positions, found.unmatched) == (N - 1, 1)
    assert not found.holds("float16", same_machine=False)


def test_vectors_count_too_and_a_number_that_is_none_is_infinitely_off(block):
    other = (TABLES[0] + np.float32(0.5),)
    assert agreement(block, block, TABLES, other).vectors == 0.5
    found = agreement(block, changed(block, "logsumexp", 3, np.nan), TABLES, TABLES)
    assert found.off == np.inf


def test_labels_of_lists_have_no_states_and_no_vectors(block):
    lists = replace(block, state=None)
    found = agreement(lists, lists, (), ())
    assert (found.states, found.vectors) == (None, None)
    assert found.holds("float16", same_machine=True)
