"""A student of users is exported as it is evaluated: by user, with the items that the user has behind all others."""

import json

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch

from ckd.stages.export.faiss import INDEX, write_index
from ckd.stages.export.onnx import MODEL, write_onnx
from ckd.stages.export.student import Exported
from ckd.stages.export.weights import load_export, write_weights
from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import Domain, ScoresHistories
from ckd.stages.students.serving import UserServing
from ckd.storage.corpus import HELD_OUT
from ckd.storage.errors import DamagedArtifact, UserError

SOME = np.array([3, 0, 17, 39, 3], np.int32)


def student(trained, **settings):
    """One of random weights, over the users of domain a."""
    module = STUDENTS.load("lightgcn")
    torch.manual_seed(1)
    built = module.build(module.Settings(hidden=8, **settings), [Domain(0, trained.corpora["a"])])
    with torch.no_grad():
        for vectors in built.parameters():
            vectors.mul_(10)
    return built.eval()


@pytest.fixture(params=[False, True], ids=["behind", "repeats"])
def found(trained, request) -> Exported:
    return trained.exported(trained.alone, "a", student(trained, repeats=request.param))


def evaluated(found: Exported, users=SOME) -> np.ndarray:
    ends = found.domain.corpus.lengths[users].astype(np.int32)
    return found.student.scorer(found.domain)(users, ends).numpy()


def as_evaluated(found: Exported) -> dict[str, np.ndarray]:
    """The arguments by hand: each user's training items, or none where they may be recommended again."""
    corpus = found.domain.corpus
    trained = [corpus.sequence_of(user)[:-HELD_OUT].tolist() for user in SOME]
    longest = max(map(len, trained))
    items = np.array([[*own, *[2] * (longest - len(own))] for own in trained])
    lengths = np.array([0 if found.student.repeats else len(own) for own in trained])
    return {"users": SOME.astype(np.int64), "items": items, "lengths": lengths}


def test_the_function_gives_the_scores_of_evaluation(found) -> None:
    assert not isinstance(found.student, ScoresHistories)
    with torch.inference_mode():
        scores = found.serving(*(torch.from_numpy(value) for value in as_evaluated(found).values())).numpy()
    np.testing.assert_allclose(scores, evaluated(found), atol=1e-5)
    assert np.ptp(scores, axis=1).min() > 1e-2, "a test of equal scores shows nothing"


def test_items_that_are_given_come_last_in_their_own_order() -> None:
    serving = UserServing(torch.eye(3), torch.tensor([[5.0, 1, 2], [4, 3, 0], [3, 2, 9], [2, 7, 1]]))
    items, lengths = torch.tensor([[1, 0], [3, 3], [0, 1]]), torch.tensor([2, 2, 0])
    scores = serving(torch.tensor([0, 1, 2]), items, lengths)
    assert scores.argsort(1, descending=True).tolist() == [[2, 3, 0, 1], [1, 2, 0, 3], [2, 0, 3, 1]]
    torch.testing.assert_close(scores[2], torch.tensor([2.0, 0, 9, 1]))
    torch.testing.assert_close(scores[0, 2:], torch.tensor([3.0, 2]))


def test_the_onnx_model_gives_the_scores_of_evaluation_for_any_batch_and_length(found, tmp_path) -> None:
    assert write_onnx(found, tmp_path, None) < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / MODEL, providers=["CPUExecutionProvider"])
    given, wanted = as_evaluated(found), evaluated(found)
    scores, query = session.run(["scores", "query"], given)
    np.testing.assert_allclose(scores, wanted, atol=1e-5)
    vectors = found.vectors.item_vectors().numpy()
    np.testing.assert_allclose(query, found.vectors.query(torch.from_numpy(given["users"])).numpy())
    one = {name: value[:1] for name, value in given.items()} | {
        "items": given["items"][:1, :1],
        "lengths": np.array([0]),
    }
    (raw,) = session.run(["scores"], one)
    np.testing.assert_allclose(raw, query[:1] @ vectors.T, atol=1e-5)


def test_the_best_items_of_the_onnx_model_leave_behind_what_the_user_has(found, tmp_path) -> None:
    write_onnx(found, tmp_path, 4)
    session = onnxruntime.InferenceSession(tmp_path / MODEL, providers=["CPUExecutionProvider"])
    (best,) = session.run(["best_items"], as_evaluated(found))
    np.testing.assert_array_equal(best, np.argsort(-evaluated(found), axis=1, kind="stable")[:, :4])


def test_what_is_loaded_scores_as_what_was_exported(found, trained, tmp_path) -> None:
    write_weights(found, {"a": trained.corpora["a"]}, tmp_path)
    serving, items = load_export(tmp_path)
    assert isinstance(serving, UserServing) and items.equals(trained.corpora["a"].items)
    with torch.inference_mode():
        scores = serving(*(torch.from_numpy(value) for value in as_evaluated(found).values()))
    np.testing.assert_allclose(scores.numpy(), evaluated(found), atol=1e-5)
    assert pq.read_table(tmp_path / "users.parquet")["user_id"].to_pylist() == trained.corpora["a"].user_ids.to_pylist()
    assert json.loads((tmp_path / "config.json").read_text())["serves"] == "users"
    with pytest.raises(UserError, match="has no domain 'b'"):
        load_export(tmp_path, "b")


@pytest.mark.parametrize("name", ["model.safetensors", "users.parquet", "items.parquet"])
def test_a_flipped_byte_is_named(trained, tmp_path, name: str) -> None:
    write_weights(trained.exported(trained.alone, "a", student(trained)), {"a": trained.corpora["a"]}, tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DamagedArtifact, match=f"{name} is damaged: .* export the run again"):
        load_export(tmp_path)


def test_the_index_finds_the_best_items_of_every_user(found, trained, tmp_path) -> None:
    recall = write_index(found, {"a": trained.corpora["a"]}, tmp_path, "Flat", None, 5)
    assert (recall.share, recall.queries) == (1, 40) and (tmp_path / INDEX).exists()


def test_it_can_be_moved_to_another_device() -> None:
    serving = UserServing(torch.eye(3), torch.eye(4, 3)).to("meta")
    given = torch.zeros(2, dtype=torch.int64, device="meta")
    assert serving(given, given.unsqueeze(1), given).shape == (2, 4)


@pytest.mark.parametrize("form", ["onnx", "safetensors", "faiss"])
@pytest.mark.parametrize("best", [False, True])
def test_the_example_in_the_readme_runs(trained, run_example, tmp_path, form: str, best: bool) -> None:
    """Whether the first item, which the example puts behind, is the first user's best one or not."""
    built, corpora = student(trained, repeats=True), {"a": trained.corpora["a"]}
    with torch.no_grad():
        built.items.weight[0] = (10 if best else -10) * built.users.weight[0]
    found = trained.exported(trained.alone, "a", built)
    with torch.inference_mode():
        scores = found.serving(torch.tensor([0]), torch.tensor([[0]]), torch.tensor([1]))[0]
        raw = found.serving(torch.tensor([0]), torch.tensor([[0]]), torch.tensor([0]))[0]
    assert (int(raw.argmax()) == 0) == best
    if form == "onnx":
        write_onnx(found, tmp_path, None)
    elif form == "safetensors":
        write_weights(found, corpora, tmp_path)
    else:
        write_index(found, corpora, tmp_path, "Flat", None, 5)
    ids = corpora["a"].items["item_id"].to_pylist()
    wanted = [ids[code] for code in scores.argsort(descending=True, stable=True)[:5].tolist()]
    assert [item for item, _ in run_example(tmp_path)] == wanted
