"""A checkpoint of another kind than the configuration says is answered with the kind that it is of."""

import pytest

from ckd.stages.teachers import TEACHERS
from ckd.storage.errors import UserError


@pytest.fixture
def folders(world, tmp_path, make_recformer):
    """A frozen teacher's folder by kind."""
    return {"unisrec": world.teacher, "recformer": make_recformer(tmp_path / "recformer")}


WRONG = [("recformer", "unisrec"), ("unisrec", "recformer"), ("sasrec", "unisrec"), ("sasrec", "recformer")]


@pytest.mark.parametrize(("kind", "given"), WRONG)
def test_the_kind_that_it_is_of_is_named(folders, tmp_path, kind, given):
    folder = folders[given]
    with pytest.raises(UserError) as caught:
        TEACHERS.load(kind).Settings(checkpoint=str(folder)).files("d", "teachers.t")
    assert str(caught.value) == (
        f"{folder / 'config.json'} is of a teacher of kind {given}; set kind: {given}, or name the folder of a {kind}"
    )


@pytest.mark.parametrize("kind", ["unisrec", "recformer"])
def test_one_of_its_own_kind_is_not_refused(folders, kind):
    files = TEACHERS.load(kind).Settings(checkpoint=str(folders[kind])).files("d", "teachers.t")
    assert {"config.json", "model.safetensors"} <= files.keys()


def test_weights_without_a_configuration_are_answered_under_the_checkpoint(folders, tmp_path):
    weights = tmp_path / "alone" / "best_model.bin"
    weights.parent.mkdir()
    weights.write_bytes(b"whatever")
    with pytest.raises(UserError, match=r"^teachers\.t\.checkpoint: there is no config\.json beside .*best_model\.bin"):
        TEACHERS.load("recformer").Settings(checkpoint=str(weights)).files("d", "teachers.t")
