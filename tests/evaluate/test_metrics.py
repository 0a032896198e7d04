"""Metrics by hand, ranks against a full sort, and how ties, NaN and the history are treated."""

import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.evaluate.metrics import metric_names, metrics, row_metrics
from ckd.stages.evaluate.ranking import pessimistic_rank, rank_targets
from ckd.stages.evaluate.serving import milliseconds_per_1000_users
from ckd.storage.corpus import Corpus

RANKS = np.array([1, 2, 10, 11, 50, 51], np.int32)


def corpus_of(sequences, n_items):
    offsets = np.concatenate([[0], np.cumsum([len(items) for items in sequences])]).astype(np.int64)
    users = pa.array([f"u{n:02d}" for n in range(len(sequences))])
    items = pa.table({"item": np.arange(n_items, dtype=np.int32)})
    return Corpus("key", items, users, offsets, np.concatenate(sequences).astype(np.int32))


# --- metrics from ranks


def test_metrics_of_known_ranks_are_those_worked_out_by_hand():
    found = metrics(RANKS, [10, 50])
    gain = [1.0, 1 / math.log2(3), 1 / math.log2(11), 1 / math.log2(12), 1 / math.log2(51)]
    assert found == pytest.approx(
        {
            "recall@10": 3 / 6,
            "recall@50": 5 / 6,
            "ndcg@10": sum(gain[:3]) / 6,
            "ndcg@50": sum(gain) / 6,
            "mrr": (1 + 1 / 2 + 1 / 10 + 1 / 11 + 1 / 50 + 1 / 51) / 6,
        },
        abs=1e-15,
    )
    # The same with the numbers written out: log2(3), log2(11), log2(12), log2(51) are 1.585, 3.459, 3.585, 5.672.
    assert found["ndcg@10"] == pytest.approx(0.3199985, abs=1e-6)
    assert list(found) == metric_names([10, 50]) == ["recall@10", "recall@50", "ndcg@10", "ndcg@50", "mrr"]


def test_each_row_has_its_own_value():
    rows = row_metrics(RANKS, [10])
    assert rows["recall@10"].tolist() == [1, 1, 1, 0, 0, 0]
    assert rows["ndcg@10"][2:4].tolist() == [1 / math.log2(11), 0]
    assert rows["mrr"].tolist() == [1, 1 / 2, 1 / 10, 1 / 11, 1 / 50, 1 / 51]


def test_without_rows_there_is_no_metric():
    assert all(math.isnan(value) for value in metrics(np.empty(0, np.int32), [10]).values())


# --- ranks


@given(st.integers(1, 8), st.integers(1, 20), st.integers(0, 2**32))
def test_the_rank_is_the_place_after_every_item_that_scores_as_high(rows, items, seed):
    draw = np.random.default_rng(seed)
    scores, target = draw.integers(0, 5, (rows, items)).astype(np.float32), draw.integers(0, items, rows)
    found = pessimistic_rank(torch.from_numpy(scores), torch.from_numpy(target))
    own = scores[np.arange(rows), target][:, None]
    assert found.tolist() == (scores >= own).sum(1).tolist()


def test_a_model_that_gives_every_item_one_score_gets_the_worst_rank():
    assert pessimistic_rank(torch.zeros(2, 9), torch.tensor([0, 8])).tolist() == [9, 9]


def test_a_target_without_a_number_for_a_score_ranks_last_and_such_items_rank_before_a_target():
    scores = torch.tensor([[math.nan, 1, 2], [math.nan, 5, 2], [math.nan, math.nan, math.nan], [-math.inf, 0, 1]])
    assert pessimistic_rank(scores, torch.tensor([0, 1, 1, 0])).tolist() == [3, 2, 3, 3]


@pytest.mark.parametrize("block", [1, 2, 512])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_scorer_is_asked_for_the_history_before_the_held_out_item(split, block):
    sequences = [[0, 1, 2], [3, 4, 5, 6], [6, 5, 4, 3, 2]]
    corpus = corpus_of(sequences, 7)
    asked = []

    def scorer(users, position):
        asked.extend(zip(users.tolist(), position.tolist(), strict=True))
        wanted = [sequences[user][length] for user, length in zip(users, position, strict=True)]
        scores = torch.zeros(len(users), 7)
        scores[torch.arange(len(users)), torch.tensor(wanted)] = 1.0
        return scores

    assert rank_targets(scorer, corpus, split, rows_per_block=block).tolist() == [1, 1, 1]
    back = {"valid": 2, "test": 1}[split]
    assert asked == [(user, len(items) - back) for user, items in enumerate(sequences)]


def test_a_masked_history_is_out_of_the_ranking_but_for_the_target_itself():
    """User 0 goes back to item 0, which is the target; user 1 has seen the two best items."""
    corpus = corpus_of([[0, 1, 2, 0], [4, 3, 4, 1]], 6)
    scores = torch.tensor([[3.0, 5, 4, 1, 0, 2], [0.0, 1, 2, 8, 9, 3]])

    def scorer(users, position):
        return scores[torch.from_numpy(users).long()].clone()

    assert rank_targets(scorer, corpus, "test").tolist() == [3, 5]
    assert rank_targets(scorer, corpus, "test", mask_history=True).tolist() == [1, 3]


def test_masking_works_on_scores_of_an_inference_pass():
    corpus = corpus_of([[0, 1, 2, 3]], 4)

    @torch.inference_mode()
    def scorer(users, position):
        return torch.arange(4.0).flip(0).repeat(len(users), 1)

    assert rank_targets(scorer, corpus, "test").tolist() == [4]
    assert rank_targets(scorer, corpus, "test", mask_history=True).tolist() == [1]


def test_masking_leaves_the_scorers_own_table_as_it_was():
    corpus = corpus_of([[0, 1, 2, 3]], 4)
    table = torch.tensor([[4.0, 3, 2, 1]])
    rank_targets(lambda users, position: table, corpus, "test", mask_history=True)
    assert table.tolist() == [[4.0, 3, 2, 1]]


def test_serving_is_measured_on_whole_histories_of_all_users():
    corpus = corpus_of([[0, 1, 2, 3], [1, 2, 0]], 5)
    asked = []

    def scorer(users, position):
        asked.append((users.tolist(), position.tolist()))
        return torch.zeros(len(users), 5)

    assert milliseconds_per_1000_users(scorer, corpus) > 0
    assert asked == [([0, 1], [3, 2])] * 6
