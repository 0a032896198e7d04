"""The ONNX model of a student against the student itself, in onnxruntime."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch

from ckd.stages.export.onnx import MODEL, write_onnx
from ckd.stages.export.student import CLOSE
from ckd.stages.students.sequence import SequenceStudent
from ckd.storage.errors import UserError

TOP = 4
MODELS = {"alone": ("alone", "a", None), "joint": ("joint", "b", None), "best": ("alone", "a", TOP)}


@pytest.fixture(scope="module")
def models(trained, tmp_path_factory):
    """``{name: (what was exported, its folder)}``."""
    made = {}
    for name, (run, domain, top) in MODELS.items():
        found = trained.exported(getattr(trained, run), domain)
        folder = tmp_path_factory.mktemp(name)
        assert write_onnx(found, folder, top) < 1e-5
        made[name] = (found, folder)
    return made


def session(folder):
    return onnxruntime.InferenceSession(folder / MODEL, providers=["CPUExecutionProvider"])


def padded(histories, filling=0):
    width = max(map(len, histories))
    rows = [[*history, *[filling] * (width - len(history))] for history in histories]
    return {"items": np.array(rows, np.int64), "lengths": np.array([len(history) for history in histories], np.int64)}


def drawn(n_items, *lengths):
    draw = np.random.default_rng(sum(lengths))
    return [draw.integers(0, n_items, length).tolist() for length in lengths]


@pytest.mark.parametrize("lengths", [(1,), (6,), (4,), (1, 1), (6, 1, 3), (2, 5, 2, 1, 6, 4, 3)])
@pytest.mark.parametrize("name", ["alone", "joint"])
def test_onnxruntime_gives_the_scores_of_evaluation_for_any_batch_and_length(models, scores_of, name, lengths):
    found, folder = models[name]
    histories = drawn(found.domain.corpus.n_items, *lengths)
    (scores,) = session(folder).run(["scores"], padded(histories))
    wanted = scores_of(found, histories).numpy()
    assert scores.shape == wanted.shape == (len(lengths), found.domain.corpus.n_items)
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-5)
    assert np.ptp(wanted, axis=1).min() > 1e-3, "a test of equal scores shows nothing"


def test_padding_changes_nothing_whatever_it_holds(models):
    found, folder = models["alone"]
    histories = drawn(found.domain.corpus.n_items, 2, 6)
    first, second = (session(folder).run(["scores"], padded(histories, filling))[0] for filling in (0, 10))
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)
    alone = session(folder).run(["scores"], padded(histories[:1]))[0]
    np.testing.assert_allclose(first[:1], alone, rtol=0, atol=1e-6)


def test_the_best_items_are_those_of_the_scores(models, scores_of):
    found, folder = models["best"]
    histories = drawn(found.domain.corpus.n_items, 3, 6, 1)
    items, scores = session(folder).run(["best_items", "best_scores"], padded(histories))
    wanted = scores_of(found, histories).sort(dim=1, descending=True, stable=True)
    assert items.tolist() == wanted.indices[:, :TOP].tolist()
    np.testing.assert_allclose(scores, wanted.values[:, :TOP], rtol=0, atol=1e-5)


def test_of_equal_scores_the_lower_code_is_the_better_item(trained, tmp_path):
    student = trained.student(trained.alone)
    with torch.no_grad():
        student.items.weight[[2, 5, 9]] = student.items.weight[2].clone()
    write_onnx(trained.exported(trained.alone, "a", student), tmp_path, 11)
    (items,) = session(tmp_path).run(["best_items"], padded(drawn(11, 4, 2, 6)))
    places = [[row.index(code) for code in (2, 5, 9)] for row in items.tolist()]
    assert all(place == list(range(place[0], place[0] + 3)) for place in places)


def test_the_query_times_the_item_vectors_are_the_scores(models):
    found, folder = models["joint"]
    given = padded(drawn(17, 3, 5))
    scores, query = session(folder).run(["scores", "query"], given)
    np.testing.assert_allclose(query @ found.vectors.item_vectors().detach().numpy().T, scores, atol=1e-5)


def test_the_model_is_whole_and_says_what_it_takes(models):
    _, folder = models["best"]
    model = onnx.load(folder / MODEL)
    onnx.checker.check_model(model, full_check=True)
    config = json.loads((folder / "config.json").read_text())
    assert {value.name for value in model.graph.input} == set(config["inputs"])
    assert {value.name for value in model.graph.output} == set(config["outputs"])
    assert config["outputs"]["best_items"] == ["int64", "batch", TOP]
    assert config["outputs"]["query"] == ["float32", "batch", 8]
    assert (config["domain"], config["max_length"], config["n_items"]) == ("a", 6, 11)
    assert config["metrics"]["a"]["test"]["recall@50"] == 1


def test_items_are_named_in_order_of_code(models):
    found, folder = models["joint"]
    table = pq.read_table(folder / "items.parquet").to_pydict()
    assert table["item"] == list(range(17))
    assert table["item_id"] == [7 * code for code in range(17)]
    assert table["title"] == found.domain.corpus.items["title"].to_pylist()


@pytest.mark.parametrize("name", MODELS)
def test_the_example_in_the_readme_runs(models, run_example, scores_of, name):
    found, folder = models[name]
    printed = run_example(folder)
    scores = scores_of(found, [[0, 1, 2]])[0]
    best = scores.argsort(descending=True, stable=True)[: TOP if name == "best" else 5]
    ids = found.domain.corpus.items["item_id"].to_pylist()
    assert [item for item, _ in printed] == [str(ids[code]) for code in best.tolist()]
    assert [float(score) for _, score in printed] == pytest.approx(scores[best].tolist(), abs=1e-5)


@pytest.mark.parametrize("longest", [1, 2])
def test_students_that_see_hardly_anything_can_be_exported(trained, tmp_path, longest):
    from ckd.stages.students.contract import Domain
    from ckd.stages.students.sasrec import Settings
    from ckd.stages.students.sasrec.network import SASRec

    torch.manual_seed(0)
    student = SASRec(Settings(hidden=4, heads=1, max_length=longest), 11)
    found = trained.exported(trained.alone, "a", student)
    assert isinstance(found.domain, Domain)
    assert write_onnx(found, tmp_path, None) < 1e-5


class Biased(SequenceStudent):
    """A student whose serving forgets what its scorer adds."""

    max_length = 6

    def __init__(self):
        super().__init__()
        self.items = torch.nn.Embedding(11, 4)

    def encode(self, items):
        return self.items(items)

    def item_vectors(self):
        return self.items.weight

    def scorer(self, domain):
        plain = super().scorer(domain)
        return lambda users, position: plain(users, position) + torch.arange(11.0)


def test_a_serving_that_scores_otherwise_than_evaluation_is_refused(trained):
    with pytest.raises(UserError, match="scores otherwise than what it was evaluated with"):
        trained.exported(trained.alone, "a", Biased())


class Misread(torch.nn.Module):
    """A serving that the exporter sees otherwise than it is run."""

    def __init__(self, serving):
        super().__init__()
        self.serving = serving

    def answer(self, *given):
        scores = self.serving(*given)
        return (scores + 1e-3 if torch.compiler.is_exporting() else scores), None


def test_a_model_that_gives_other_scores_than_the_student_is_refused(trained, tmp_path):
    found = trained.exported(trained.alone, "a")
    line = r"onnxruntime gives other scores than the student \(by 1\.0e-03\), so the model is not written; export its"
    with pytest.raises(UserError, match=line):
        write_onnx(replace(found, serving=Misread(found.serving)), tmp_path, None)


def test_a_student_that_offers_no_function_is_refused(trained):
    class OfUsers(torch.nn.Module):
        max_length = 6

    line = "student small of kind sasrec offers neither `serving` nor `user_serving`: only `ckd recommend` can serve it"
    with pytest.raises(UserError, match=line):
        trained.exported(trained.alone, "a", OfUsers())


def test_a_rounding_error_is_told_from_another_answer(models):
    """The check at export would notice scores that are wrong by a hundredth."""
    config = json.loads((models["alone"][1] / "config.json").read_text())
    assert 0 <= config["largest_difference"] < CLOSE / 10


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_one_line_with_the_mend(missing):
    code = (
        f"import sys; sys.modules[{missing!r}] = None; from ckd.stages.export.onnx import require_onnx; require_onnx()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = f"UserError: ONNX needs {missing}, not installed here; run `pip install 'ckd[export]'`"
    assert done.stderr.splitlines()[-1].endswith(said)
