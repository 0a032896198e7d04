"""Every kind of student is served as it is evaluated, by torch and by onnxruntime alike; of users: test_of_users.py."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
import torch

from ckd.stages.export.audience import everybody
from ckd.stages.export.faiss import build
from ckd.stages.export.onnx import MODEL, write_onnx
from ckd.stages.export.recommend import best_lists
from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import Domain, side_by_side
from ckd.storage.errors import UserError

SMALL: Mapping[str, Mapping[str, Any]] = {
    "sasrec": {"hidden": 8, "blocks": 1},
    "esasrec": {"hidden": 8, "blocks": 1},
    "gru4rec": {"hidden": 8, "layers": 2},
    "bert4rec": {"hidden": 8, "blocks": 1},
    "fm": {"hidden": 8, "min_items": 1},
    "deepfm": {"hidden": 8, "min_items": 1},
    "lightgcn": {"hidden": 8},
}
OF_USERS = {"lightgcn"}
NO_DOT_PRODUCT = {"deepfm"}
LENGTHS = [(1,), (5,), (4, 1, 6, 2)]


def student_of(trained, kind, run):
    """A student of random weights, none of which is at its start, over the domains of a run."""
    module, domains = STUDENTS.load(kind), side_by_side(list(trained.of(run).values()))
    scope = {"scope": "joint"} if len(domains) > 1 else {}
    seen = {"max_length": 6} if "max_length" in module.Settings.model_fields else {}
    torch.manual_seed(1)
    student = module.build(module.Settings(**SMALL[kind], **seen, **scope), domains)
    with torch.no_grad():
        for tensor in student.parameters():
            tensor.add_(0.3 * torch.randn(tensor.shape))
    return student.eval()


def test_every_kind_of_ours_is_here():
    assert set(STUDENTS.names()) == set(SMALL)


@pytest.mark.parametrize("kind", [kind for kind in SMALL if kind not in OF_USERS])
def test_its_onnx_model_scores_as_its_evaluation_does(trained, scores_of, tmp_path, kind):
    found = trained.exported(trained.joint, "b", student_of(trained, kind, trained.joint))
    write_onnx(found, tmp_path, None)
    session = onnxruntime.InferenceSession(tmp_path / MODEL, providers=["CPUExecutionProvider"])
    draw = np.random.default_rng(0)
    for lengths in LENGTHS:
        histories = [draw.integers(0, 17, length).tolist() for length in lengths]
        rows = [[*history, *[3] * (max(lengths) - len(history))] for history in histories]
        (scores,) = session.run(["scores"], {"items": np.array(rows), "lengths": np.array(lengths)})
        wanted = scores_of(found, histories).numpy()
        np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-5)
        assert np.ptp(wanted, axis=1).min() > 1e-2, "a test of equal scores shows nothing"


@pytest.mark.parametrize("kind", [kind for kind in SMALL if kind not in OF_USERS | NO_DOT_PRODUCT])
def test_a_flat_index_finds_its_best_items_biases_included(trained, kind):
    found = trained.exported(trained.joint, "b", student_of(trained, kind, trained.joint))
    assert build(found, "Flat", None, 5)[1].share == 1
    with torch.inference_mode():
        items, lengths = torch.tensor([[1, 2, 3]]), torch.tensor([3])
        product = found.vectors.query(items, lengths) @ found.vectors.item_vectors().T
        torch.testing.assert_close(product, found.serving(items, lengths))


@pytest.mark.parametrize("kind", sorted(NO_DOT_PRODUCT))
def test_one_whose_score_is_no_dot_product_is_refused_an_index(trained, kind):
    found = trained.exported(trained.joint, "b", student_of(trained, kind, trained.joint))
    with pytest.raises(UserError, match="does not score by a dot product"):
        build(found, "Flat", None, 5)


@pytest.mark.parametrize("kind", sorted(OF_USERS))
def test_one_of_users_recommends_to_those_it_has(trained, kind):
    student, corpus = student_of(trained, kind, trained.alone), trained.corpora["a"]
    rows = pa.Table.from_batches(list(best_lists(student.scorer(Domain(0, corpus)), everybody(corpus), 3, False)))
    assert rows["user_id"].to_pylist() == [user for user in corpus.user_ids.to_pylist() for _ in range(3)]
    assert len(set(rows["score"].to_pylist())) > 40
