"""Ranked lists become labels of the completed distribution, computed a second time over the whole catalogue."""

import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.precompute import lists as module
from ckd.stages.precompute.label import label_corpus
from ckd.stages.precompute.lists import SMALLEST_REST, ListLabeller
from ckd.stages.precompute.settings import LabelSettings
from ckd.stages.precompute.shards import Shard
from ckd.stages.teachers.contract import RankedLists
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError
from ckd.storage.keys import Address
from ckd.storage.labels import LISTED_WITHIN, UNLISTED_FIRST, part_names, read_labels
from ckd.storage.rounding import ROUNDINGS
from ckd.storage.store import Store
from ckd.storage.vectors import VECTORS

N_ITEMS = 9
CPU = torch.device("cpu")


def corpus_of(sequences, n_items=N_ITEMS):
    items = pa.table({"item": np.arange(n_items), "item_id": [f"i{code}" for code in range(n_items)]})
    offsets = np.cumsum([0, *map(len, sequences)])
    flat = np.array([item for sequence in sequences for item in sequence], np.int32)
    return Corpus("key", items, pa.array([f"u{user}" for user in range(len(sequences))]), offsets, flat)


def ranked(lists, skip_missing=False):
    """RankedLists of ``[(items, probabilities), ...]``, one per position."""
    return RankedLists(
        offsets=np.cumsum([0, *(len(items) for items, _ in lists)]),
        items=np.array([item for items, _ in lists for item in items], np.int32),
        logprobs=np.log(np.array([p for _, probabilities in lists for p in probabilities], np.float64)),
        source="lists.jsonl",
        skip_missing=skip_missing,
    )


def dense(items, logprobs, n_items=N_ITEMS):
    """The completed distribution, item by item."""
    p = [math.exp(value) for value in logprobs]
    held, others = math.fsum(p), n_items - len(items)
    top = 1.0 if not others else min(held, 1 - SMALLEST_REST)
    completed = [None] * n_items
    for item, value in zip(items, p, strict=True):
        completed[item] = value * top / held
    return np.array([(1 - top) / others if value is None else value for value in completed])


@st.composite
def worlds(draw):
    """A corpus and a list for each of its positions, ragged, of any mass, some with equal probabilities."""
    lengths = draw(st.lists(st.integers(3, 6), min_size=1, max_size=4))
    sequences = [draw(st.lists(st.integers(0, N_ITEMS - 1), min_size=n, max_size=n)) for n in lengths]
    lists = []
    for _ in range(sum(lengths) - len(lengths)):
        items = draw(st.lists(st.integers(0, N_ITEMS - 1), min_size=1, max_size=N_ITEMS, unique=True))
        weights = [draw(st.sampled_from([1e-4, 0.02, 0.3, 1.0, 5.0])) for _ in items]
        mass = 1.0 if len(items) == N_ITEMS else draw(st.sampled_from([0.05, 0.5, 0.9, 0.999, 1.0]))
        p = sorted((mass * weight / sum(weights) for weight in weights), reverse=True)
        lists.append((items, p))
    return sequences, lists


def labelled(corpus, lists, **settings):
    chosen = LabelSettings(**{"precision": "exact", **settings})
    return ListLabeller(lists, corpus, chosen).block(Shard(0, 0, corpus.n_users))


@given(worlds(), st.integers(1, N_ITEMS + 2))
def test_a_row_is_the_top_k_of_the_completed_distribution(world, top_k):
    sequences, lists = world
    corpus = corpus_of(sequences)
    block = labelled(corpus, ranked(lists), top_k=top_k)
    k = min(top_k, N_ITEMS)
    assert len(block) == len(lists)
    assert block.k == k
    for row, (items, p) in enumerate(lists):
        completed = dense(items, np.log(p))
        np.testing.assert_allclose(completed.sum(), 1, rtol=1e-12)
        # Equal but for the last bits is equal: what ties in the list, or with the rest, is ordered by code.
        told = np.round(np.log(completed), 9)
        order = np.lexsort((np.arange(N_ITEMS), -told))
        np.testing.assert_allclose(np.exp(block.logprobs[row]), completed[order[:k]], rtol=2e-6)
        separate = np.unique(told).size == N_ITEMS
        if separate or not _nearly_tied(items, p):
            assert block.items[row].tolist() == order[:k].tolist()
            assert block.target_rank[row] == 1 + order.tolist().index(block.target[row])
        assert len(set(block.items[row].tolist())) == k
        np.testing.assert_allclose(block.kept_mass[row], completed[order[:k]].sum(), rtol=1e-6)
        np.testing.assert_allclose(
            block.target_logprob[row], np.log(completed[block.target[row]]), rtol=1e-6, atol=1e-6
        )
        np.testing.assert_allclose(block.entropy[row], -(completed * np.log(completed)).sum(), rtol=1e-5, atol=1e-6)
        assert block.logsumexp[row] == 0
    assert block.state is None


def _nearly_tied(items, p):
    """Whether a listed item has the share of an unlisted one but for rounding, so that either order is right."""
    completed = dense(items, np.log(p))
    rest = [completed[item] for item in range(N_ITEMS) if item not in items]
    return bool(rest) and bool(np.isclose(completed[items], rest[0], rtol=1e-9).any())


def test_the_row_of_a_small_list_by_hand():
    corpus = corpus_of([[0, 1, 4]], n_items=5)
    block = labelled(corpus, ranked([([3, 1], [0.5, 0.2]), ([2], [0.1])]), top_k=4)
    assert block.items.tolist() == [[3, 1, 0, 2], [0, 1, 3, 4]]
    np.testing.assert_allclose(np.exp(block.logprobs), [[0.5, 0.2, 0.1, 0.1], [0.225] * 4], rtol=1e-6)
    np.testing.assert_allclose(block.kept_mass, [0.9, 0.9], rtol=1e-6)
    assert block.target.tolist() == [1, 4]
    assert block.target_rank.tolist() == [2, 4]
    np.testing.assert_allclose(np.exp(block.target_logprob), [0.2, 0.225], rtol=1e-6)


def test_listed_items_leave_a_millionth_to_the_unlisted_ones():
    corpus = corpus_of([[0, 1, 2]], n_items=4)
    block = labelled(corpus, ranked([([3, 1], [0.7, 0.3]), ([2, 0], [0.7, 0.305])]), top_k=3)
    np.testing.assert_allclose(block.kept_mass, 1 - SMALLEST_REST / 2, rtol=1e-7)
    np.testing.assert_allclose(np.exp(block.logprobs[:, 2].astype(float)), SMALLEST_REST / 2, rtol=1e-5)
    assert np.isfinite(block.target_logprob).all()


def test_a_list_of_the_whole_catalogue_leaves_nothing():
    corpus = corpus_of([[0, 1, 2]], n_items=3)
    block = labelled(corpus, ranked([([2, 0, 1], [0.5, 0.3, 0.199])] * 2), top_k=3)
    np.testing.assert_allclose(np.exp(block.logprobs).sum(1), 1, rtol=1e-6)
    assert np.isfinite(block.entropy).all()


@pytest.fixture
def random_lists():
    draw = np.random.default_rng(5)
    sequences = [draw.integers(0, 40, length).tolist() for length in draw.integers(3, 9, 20)]
    corpus = corpus_of(sequences, n_items=40)
    lists = []
    for _ in range(corpus.n_positions):
        m = int(draw.integers(1, 25))
        p = np.sort(draw.dirichlet(np.ones(m)))[::-1] * draw.uniform(0.3, 0.99)
        lists.append((draw.permutation(40)[:m].tolist(), p))
    return corpus, lists


def test_blocks_change_no_bit(random_lists, monkeypatch):
    corpus, lists = random_lists
    whole = labelled(corpus, ranked(lists), top_k=10)
    monkeypatch.setattr(module, "CELLS_PER_BLOCK", 70)
    for name, column in vars(labelled(corpus, ranked(lists), top_k=10)).items():
        np.testing.assert_array_equal(column, getattr(whole, name), err_msg=name)


def test_shards_change_no_bit_and_the_artifact_reads_back(random_lists, tmp_path):
    corpus, lists = random_lists
    whole = labelled(corpus, ranked(lists), top_k=10, precision="fixed")
    for rows in (7, 1_000):
        settings = LabelSettings(top_k=10, shard_rows=rows)
        address = Address("labels", {"rows": rows}, (("teacher", "llm"), ("domain", "d")))
        artifact = label_corpus(Store(tmp_path), address, corpus, settings, lambda: ranked(lists), CPU)
        assert (len(part_names(artifact)) > 1) == (rows == 7)
        assert VECTORS not in artifact.files
        assert artifact.facts["rest"] == "uniform"
        assert artifact.facts["parameters"] is None
        for name, column in vars(read_labels(artifact, corpus)).items():
            np.testing.assert_array_equal(column, getattr(whole, name), err_msg=f"{name} at {rows}")


@pytest.mark.parametrize("precision", list(ROUNDINGS))
def test_log_probabilities_are_rounded_to_the_chosen_precision(random_lists, precision):
    corpus, lists = random_lists
    exact, found = (labelled(corpus, ranked(lists), top_k=10, precision=name) for name in ("exact", precision))
    np.testing.assert_array_equal(found.logprobs, ROUNDINGS[precision](exact.logprobs))
    np.testing.assert_array_equal(found.kept_mass, exact.kept_mass)


def test_the_manifest_says_how_many_stored_items_hold_all_that_is_listed():
    corpus = corpus_of([[0, 1, 4]], n_items=5)
    settings = LabelSettings()
    lists = [([3, 1], [0.5, 0.2]), ([2, 0, 4], [0.5, 0.2, 0.15])]
    facts = ListLabeller(ranked(lists), corpus, settings).facts()
    assert (facts[LISTED_WITHIN], facts[UNLISTED_FIRST]) == (3, 0)
    lists[0] = ([3, 1], [0.5, 0.001])  # the second is less probable than what is not listed: it comes last of all
    facts = ListLabeller(ranked(lists), corpus, settings).facts()
    assert (facts[LISTED_WITHIN], facts[UNLISTED_FIRST]) == (5, 1)


# --- positions without a list


def gappy(skip_missing):
    corpus = corpus_of([[0, 1, 4, 2], [5, 6, 7]])
    lists = [([3, 1], [0.5, 0.2])] * 5
    lists[1] = lists[4] = ([], [])
    return corpus, ranked(lists, skip_missing)


def test_positions_without_a_list_are_counted_and_the_first_is_named():
    corpus, lists = gappy(skip_missing=False)
    with pytest.raises(UserError) as caught:
        ListLabeller(lists, corpus, LabelSettings())
    assert str(caught.value) == (
        "lists.jsonl: 2 of the 5 positions of train, valid, test have no list, first of user 'u0', position 2 (valid); "
        "add them, leave their split out of labels.splits, or give the teacher `missing: skip`"
    )


def test_only_the_positions_of_the_labelled_splits_must_have_a_list():
    corpus, lists = gappy(skip_missing=False)
    assert len(labelled(corpus, lists, splits=["train"])) == 1
    with pytest.raises(UserError, match="2 of the 4 positions of valid, test have no list"):
        ListLabeller(lists, corpus, LabelSettings(splits=["valid", "test"]))


def test_they_are_left_out_if_they_are_to_be_skipped():
    corpus, lists = gappy(skip_missing=True)
    block = labelled(corpus, lists, top_k=3)
    assert list(zip(block.user.tolist(), block.position.tolist(), strict=True)) == [(0, 1), (0, 3), (1, 1)]
    assert block.items.shape == (3, 3)


def test_a_shard_without_any_list_is_empty():
    corpus, lists = gappy(skip_missing=True)
    block = ListLabeller(lists, corpus, LabelSettings(splits=["train"], top_k=3)).block(Shard(1, 1, 2))
    assert block.items.shape == (0, 3)
    assert len(block) == 0


def test_no_list_at_all_is_refused_even_if_missing_ones_are_skipped():
    corpus = corpus_of([[0, 1, 4]])
    with pytest.raises(UserError, match="no position of test has a list"):
        ListLabeller(ranked([([1], [0.5]), ([], [])], skip_missing=True), corpus, LabelSettings(splits=["test"]))


def test_a_refusal_leaves_no_trace_in_the_store(tmp_path):
    corpus, lists = gappy(skip_missing=False)
    address = Address("labels", {}, (("teacher", "llm"), ("domain", "d")))
    with pytest.raises(UserError):
        label_corpus(Store(tmp_path), address, corpus, LabelSettings(), lambda: lists, CPU)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
