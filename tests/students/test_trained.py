"""A student that this version cannot build is answered in one line."""

from typing import Any

import pytest
import torch

from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import side_by_side
from ckd.stages.students.trained import load_student, save_student
from ckd.storage.artifact import Artifact
from ckd.storage.errors import UserError
from ckd.storage.keys import Address
from ckd.storage.runs import read_config, write_config


@pytest.fixture
def world(make_world: Any) -> Any:
    return make_world([[0, 1, 2, 3], [3, 2, 1]], 5)


@pytest.fixture
def run(world: Any) -> Artifact:
    kind = STUDENTS.load("sasrec")
    settings = kind.Settings(hidden=4, blocks=1)
    with world.store.draft(Address("runs", {"n": 0})) as draft:
        save_student(draft, kind.build(settings, side_by_side([world.corpus])), settings, {"d": world.corpus})
        return draft.commit()


def again(world: Any, run: Artifact, config: dict[str, Any]) -> Artifact:
    """The same weights with another configuration, as another version would have written it."""
    with world.store.draft(Address("runs", {"n": 1})) as draft:
        write_config(draft, config)
        weights = (run.path / "model.safetensors").read_bytes()
        draft.add("model.safetensors", lambda path: path.write_bytes(weights) and None)
        return draft.commit()


def changed(run: Artifact, **student: Any) -> dict[str, Any]:
    config = read_config(run)
    return {**config, "student": {**config["student"], **student}}


def test_a_saved_student_is_loaded_with_its_settings(world: Any, run: Artifact) -> None:
    network = load_student(run, {"d": world.corpus, "another": world.corpus}, torch.device("cpu"))
    assert network.items.weight.shape == (5, 4)
    assert len(network.blocks) == 1


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ({"kind": "gone"}, "a student of kind 'gone', which no installed package offers; install it"),
        ({"hidden": 8}, r"a sasrec that this version does not build \(Error.* SASRec:\); train it again"),
        ({"depth": 3}, r"a sasrec that this version does not build \(1 validation error.*\); train it again"),
    ],
)
def test_what_this_version_cannot_build_is_refused(
    world: Any, run: Artifact, student: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_student(again(world, run, changed(run, **student)), {"d": world.corpus})


def test_a_run_of_an_earlier_version_is_refused(world: Any, run: Artifact) -> None:
    old = {"corpus": world.corpus.key, "n_items": 5, "student": read_config(run)["student"]}
    with pytest.raises(UserError, match="was written by an earlier version; run `ckd distill` to train the student"):
        load_student(again(world, run, old), {"d": world.corpus})
