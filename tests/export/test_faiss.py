"""Indexes of item vectors: what they find, and that their recall is measured rightly."""

import json

import faiss
import numpy as np
import pytest
import torch

from ckd.stages.export.faiss import INDEX, QUERIES, build, queries_of, write_index
from ckd.stages.students.serving import Serving
from ckd.storage.errors import UserError

K = 5


def exact(found):
    """The vectors of the items, of every user's history, and their scores in float64."""
    users = np.arange(found.domain.corpus.n_users, dtype=np.int32)
    with torch.inference_mode():
        vectors = found.vectors.item_vectors().double().numpy()
        queries = queries_of(found, users).astype(np.float64)
    return vectors, queries, queries @ vectors.T


@pytest.mark.parametrize(("run", "domain"), [("alone", "a"), ("joint", "b")])
def test_a_flat_index_finds_the_best_items(trained, tmp_path, run, domain):
    found = trained.exported(getattr(trained, run), domain)
    recall = write_index(found, trained.of(found.run), tmp_path, "Flat", None, K)
    assert (recall.k, recall.queries, recall.share) == (K, found.domain.corpus.n_users, 1.0)
    _, queries, scores = exact(found)
    values, items = faiss.read_index(str(tmp_path / INDEX)).search(queries.astype(np.float32), K)
    assert items.tolist() == np.argsort(-scores, axis=1)[:, :K].tolist()
    np.testing.assert_allclose(values, -np.sort(-scores, axis=1)[:, :K], atol=1e-5)


@pytest.mark.parametrize(
    ("factory", "search"), [("HNSW4", None), ("HNSW4", "efSearch=64"), ("IVF6,Flat", None), ("IVF6,Flat", "nprobe=6")]
)
def test_recall_is_the_share_of_the_exact_lists_that_the_index_finds(trained, factory, search):
    found = trained.exported(trained.joint, "b")
    index, recall = build(found, factory, search, K)
    _, queries, scores = exact(found)
    answers = index.search(queries.astype(np.float32), K)[1]
    best = np.argsort(-scores, axis=1)[:, :K]
    hits = [len(set(row) & set(answer)) for row, answer in zip(best.tolist(), answers.tolist(), strict=True)]
    assert recall.share == pytest.approx(sum(hits) / (K * len(hits)))
    assert (recall.share < 1) == ((factory, search) == ("IVF6,Flat", None)), "one of them must miss something"


def test_an_index_is_the_same_bytes_each_time(trained):
    found = trained.exported(trained.joint, "b")
    once, again = (faiss.serialize_index(build(found, "HNSW4", None, K)[0]).tobytes() for _ in range(2))
    assert once == again


def test_which_of_equal_items_is_found_does_not_matter(trained):
    student = trained.student(trained.alone)
    with torch.no_grad():
        student.items.weight[:] = student.items.weight[0].clone()
    _, recall = build(trained.exported(trained.alone, "a", student), "Flat", None, K)
    assert recall.share == 1


def test_the_configuration_tells_the_index_and_its_recall(trained, tmp_path):
    found = trained.exported(trained.joint, "b")
    recall = write_index(found, trained.of(found.run), tmp_path, "IVF6,Flat", "nprobe=2", K)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["index"] == {"factory": "IVF6,Flat", "search": "nprobe=2", "metric": "inner product", "width": 8}
    assert config["recall"] == {"k": K, "queries": 30, "recall": recall.share}
    assert faiss.read_index(str(tmp_path / INDEX)).nprobe == 2
    assert QUERIES > 30


def test_the_example_in_the_readme_runs(trained, tmp_path, run_example, scores_of):
    found = trained.exported(trained.joint, "b")
    write_index(found, trained.of(found.run), tmp_path, "Flat", None, K)
    scores = scores_of(found, [[0, 1, 2]])[0]
    best = scores.argsort(descending=True, stable=True)[:5]
    printed = run_example(tmp_path)
    assert [int(item) for item, _ in printed] == [7 * code for code in best.tolist()]
    assert [float(score) for _, score in printed] == pytest.approx(scores[best].tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("factory", "search", "said"),
    [
        ("HNWS32", None, "--index HNWS32: FAISS refuses it for 17 items: could not parse index string HNWS32"),
        ("IVF64,Flat", None, "--index IVF64,Flat: FAISS refuses it for 17 items: 'nx >= "),
        ("Flat", "nprobe=8", "--search nprobe=8: FAISS refuses it for Flat of 17 items: ParameterSpace::set_index_"),
        ("Flat", "nprobe", "--search nprobe: FAISS refuses it for Flat of 17 items: 'ret == 2' failed: could not int"),
        ("IVF6,Flat", "nprobe=0", "--search nprobe=0: FAISS refuses it for IVF6,Flat of 17 items: 'cur_nprobe > 0' f"),
    ],
)
def test_an_index_that_cannot_be_is_one_line_that_names_the_option_and_no_source_of_faiss(
    trained, factory, search, said
):
    with pytest.raises(UserError) as refused:
        build(trained.exported(trained.joint, "b"), factory, search, K)
    line = str(refused.value)
    assert line.startswith(said)
    assert "\n" not in line
    assert ".cpp" not in line


def test_a_student_that_scores_otherwise_is_refused(trained):
    class Opaque(Serving):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, items, lengths):
            return self.inner(items, lengths)

    class Hidden(torch.nn.Module):
        max_length = 6

        def __init__(self, student):
            super().__init__()
            self.student = student

        def scorer(self, domain):
            return self.student.scorer(domain)

        def serving(self, domain):
            return Opaque(self.student.serving(domain)).eval()

    found = trained.exported(trained.alone, "a", Hidden(trained.student(trained.alone)))
    with pytest.raises(UserError, match="student small of kind sasrec does not score by a dot product"):
        build(found, "Flat", None, K)
