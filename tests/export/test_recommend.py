"""Lists of best items against a sort of all scores."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from ckd.stages.export.audience import everybody
from ckd.stages.export.recommend import best_lists
from ckd.storage.errors import UserError


def rows_of(batches):
    return pa.Table.from_batches(list(batches)).to_pylist()


def by_user(rows):
    lists = defaultdict(list)
    for row in rows:
        lists[row["user_id"]].append((row["rank"], row["item_id"], pytest.approx(row["score"], abs=1e-5)))
    return dict(lists)


def expected(corpus, scores, k, mask):
    """By brute force, in Python."""
    ids, lists = corpus.items["item_id"].to_pylist(), {}
    for user, name in enumerate(corpus.user_ids.to_pylist()):
        seen = set(corpus.sequence_of(user).tolist()) if mask else set()
        free = [code for code in range(corpus.n_items) if code not in seen]
        best = sorted(free, key=lambda code: (-scores[user, code], code))[:k]
        lists[name] = [(rank, ids[code], scores[user, code]) for rank, code in enumerate(best, start=1)]
    return {name: best for name, best in lists.items() if best}


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("k", [1, 4, 10, 99])
@pytest.mark.parametrize(("run", "domain"), [("alone", "a"), ("joint", "b")])
def test_lists_are_the_best_of_all_scores_of_the_whole_sequence(trained, run, domain, k, mask):
    found = trained.exported(getattr(trained, run), domain)
    corpus = found.domain.corpus
    scorer = found.student.scorer(found.domain)
    users = np.arange(corpus.n_users, dtype=np.int32)
    scores = scorer(users, corpus.lengths.astype(np.int32)).tolist()
    rows = rows_of(best_lists(scorer, everybody(corpus), k, mask))
    assert by_user(rows) == expected(corpus, np.array(scores), k, mask)


@pytest.mark.parametrize("block", [1, 7, 40, 1000])
def test_how_many_users_are_served_at_a_time_changes_nothing(trained, block):
    found = trained.exported(trained.alone, "a")
    scorer, audience = found.student.scorer(found.domain), everybody(found.domain.corpus)
    whole = rows_of(best_lists(scorer, audience, 5, True))
    done = []
    batches = list(best_lists(scorer, audience, 5, True, on_users=done.append, block=block))
    assert len(batches) == -(-40 // block)
    assert sum(done) == 40
    assert [list(row.values())[:3] for row in rows_of(batches)] == [list(row.values())[:3] for row in whole]


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_equal_scores_stand_in_order_of_item_code(trained, levels):
    corpus = trained.corpora["a"]
    scores = torch.from_numpy(np.random.default_rng(levels).integers(0, levels, (40, 11)).astype(np.float32))
    rows = rows_of(best_lists(lambda users, ends: scores[users], everybody(corpus), 6, False))
    assert by_user(rows) == expected(corpus, scores.numpy(), 6, False)


def test_users_come_in_the_order_asked_for_and_titles_beside(trained):
    found = trained.exported(trained.joint, "b")
    corpus = found.domain.corpus
    audience = replace(everybody(corpus), users=np.array([9, 2], np.int32))
    rows = rows_of(best_lists(found.student.scorer(found.domain), audience, 3, False, titles=True))
    assert [(row["user_id"], row["rank"]) for row in rows] == [(u, r) for u in (109, 102) for r in (1, 2, 3)]
    titles = dict(zip(corpus.items["item_id"].to_pylist(), corpus.items["title"].to_pylist(), strict=True))
    assert all(row["title"] == titles[row["item_id"]] for row in rows)


def test_a_student_whose_training_diverged_is_refused(trained):
    scores = torch.full((40, 11), torch.nan)
    with pytest.raises(UserError, match="scores are not numbers: its training diverged"):
        list(best_lists(lambda users, ends: scores[users], everybody(trained.corpora["a"]), 6, False))
