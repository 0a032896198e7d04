"""Weights that are loaded without a store score as the student does."""

import json
import shutil

import pytest
import torch

from ckd.stages.export.folder import write_config
from ckd.stages.export.weights import load_export, write_weights
from ckd.storage.errors import DamagedArtifact, UserError

HISTORIES = [[3, 1, 4, 1], [10], [2, 7, 1, 8, 2, 9]]


@pytest.fixture(scope="module")
def folders(trained, tmp_path_factory):
    """``{name: (what was exported, its folder)}``."""
    made = {}
    for name, run, domain in (("alone", trained.alone, "a"), ("joint", trained.joint, "b")):
        made[name] = trained.exported(run, domain), tmp_path_factory.mktemp(name)
        write_weights(made[name][0], trained.of(run), made[name][1])
    return made


def given(histories):
    width = max(map(len, histories))
    items = torch.tensor([[*history, *[0] * (width - len(history))] for history in histories])
    return items, torch.tensor([len(history) for history in histories])


@pytest.mark.parametrize("name", ["alone", "joint"])
def test_a_loaded_export_scores_as_the_student_does(folders, scores_of, name):
    found, folder = folders[name]
    student, items = load_export(folder)
    assert items.equals(found.domain.corpus.items)
    with torch.inference_mode():
        torch.testing.assert_close(student(*given(HISTORIES)), scores_of(found, HISTORIES))


def test_each_domain_of_a_joint_student_is_there(trained, folders, scores_of):
    student, items = load_export(str(folders["joint"][1]), "a")
    assert items["item_id"].to_pylist() == trained.corpora["a"].items["item_id"].cast("string").to_pylist()
    with torch.inference_mode():
        wanted = scores_of(trained.exported(trained.joint, "a"), HISTORIES)
        torch.testing.assert_close(student(*given(HISTORIES)), wanted)


@pytest.mark.parametrize("name", ["alone", "joint"])
def test_the_example_in_the_readme_runs(folders, run_example, scores_of, name):
    found, folder = folders[name]
    scores = scores_of(found, [[0, 1, 2]])[0]
    best = scores.argsort(descending=True, stable=True)[:5].tolist()
    ids = found.domain.corpus.items["item_id"].to_pylist()
    assert [item for item, _ in run_example(folder)] == [str(ids[code]) for code in best]


@pytest.mark.parametrize("name", ["model.safetensors", "items.parquet"])
def test_a_flipped_byte_is_named(folders, tmp_path, name):
    shutil.copytree(folders["alone"][1], tmp_path / "damaged")
    path = tmp_path / "damaged" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedArtifact, match=f"{name} is damaged: .* export the run again"):
        load_export(tmp_path / "damaged")


def test_a_folder_that_is_no_export_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no export that this ckd reads"):
        load_export(tmp_path)


def test_a_domain_that_is_not_there_is_refused(folders):
    with pytest.raises(UserError, match="has no domain 'office'; it has a, b"):
        load_export(folders["joint"][1], "office")


def test_an_export_without_weights_is_refused(trained, tmp_path):
    write_config(tmp_path, {"format": "onnx"})
    with pytest.raises(UserError, match="of the format onnx, which holds no weights"):
        load_export(tmp_path)


def test_settings_that_are_not_those_of_the_weights_are_one_line(folders, tmp_path):
    shutil.copytree(folders["alone"][1], tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["settings"]["hidden"] = 16
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="holds a sasrec that this version does not build") as refused:
        load_export(tmp_path / "other")
    assert "\n" not in str(refused.value)


def test_a_kind_that_is_not_installed_is_one_line(folders, tmp_path):
    shutil.copytree(folders["alone"][1], tmp_path / "foreign")
    config = json.loads((tmp_path / "foreign" / "config.json").read_text())
    config["settings"]["kind"] = "theirs"
    (tmp_path / "foreign" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="holds a student of kind 'theirs', which no installed package offers"):
        load_export(tmp_path / "foreign")
