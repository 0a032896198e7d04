"""What a student says at every position: its own log-probabilities, and what a teacher of kind scores makes of them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ckd.stages.export.positions import position_lists, position_schema
from ckd.stages.students.contract import by_name
from ckd.stages.teachers.scores import Settings
from ckd.stages.teachers.scores.read import read_lists
from ckd.storage.errors import UserError


def scorer_of(trained, run, domain):
    return trained.student(run).scorer(by_name(trained.of(run))[domain])


@pytest.mark.parametrize("block", [1, 7, None])
@pytest.mark.parametrize(("run", "domain"), [("alone", "a"), ("joint", "b")])
def test_every_position_has_the_best_items_by_brute_force(trained, run, domain, block):
    scorer, corpus = scorer_of(trained, getattr(trained, run), domain), trained.corpora[domain]
    counted = []
    table = pa.Table.from_batches(position_lists(scorer, corpus, 4, counted.append, block), position_schema(corpus))
    at, ids = corpus.positions(), corpus.items["item_id"].to_pylist()
    assert (len(table), sum(counted)) == (len(at), len(at)) and len(at) == corpus.n_positions
    assert table["user_id"].to_pylist() == corpus.user_ids.take(pa.array(at.user)).to_pylist()
    assert table["position"].to_pylist() == at.position.tolist()
    for n, row in enumerate(table.to_pylist()):
        one = slice(n, n + 1)
        scores = scorer(at.user[one].astype(np.int32), at.position[one].astype(np.int32))[0].double()
        logprobs = scores - torch.logsumexp(scores, 0)
        order = np.lexsort((np.arange(len(ids)), -logprobs.numpy()))[:4]
        assert row["items"] == [ids[code] for code in order]
        assert row["scores"] == pytest.approx(logprobs[order].tolist(), abs=1e-5)


def test_a_teacher_of_scores_reads_them_and_is_as_sure_as_the_student(trained, tmp_path):
    scorer, corpus = scorer_of(trained, trained.alone, "a"), trained.corpora["a"]
    whole = pa.Table.from_batches(position_lists(scorer, corpus, 99), position_schema(corpus))
    pq.write_table(whole, tmp_path / "lists.parquet")
    settings = Settings(path=str(tmp_path / "lists.parquet"), scores="logprob")
    lists = read_lists(settings, {"path": tmp_path / "lists.parquet"}, corpus)
    at = corpus.positions()
    scores = scorer(at.user.astype(np.int32), at.position.astype(np.int32)).double()
    for n, logprobs in enumerate(scores.log_softmax(1).numpy()):
        row = slice(lists.offsets[n], lists.offsets[n + 1])
        assert len(lists.items[row]) == corpus.n_items
        np.testing.assert_allclose(lists.logprobs[row], logprobs[lists.items[row]], atol=1e-6)


def test_scores_that_are_no_numbers_teach_nobody(trained):
    corpus = trained.corpora["a"]
    with pytest.raises(UserError, match="its training diverged; train it again"):
        list(position_lists(lambda users, _: torch.full((len(users), corpus.n_items), torch.nan), corpus, 4))
