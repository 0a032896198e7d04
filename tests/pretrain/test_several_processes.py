"""`ckd pretrain` started by torchrun on two processes of one machine, over gloo."""

import os
import subprocess
import sys

import pytest

from ckd.storage.progress import TRAINING_STATES

EPOCHS = 3
WRITING = tuple(f".{name}.writing" for name in TRAINING_STATES)


def torchrun(place, *arguments):
    """Start two processes; the environment of a terminal is that of `Workplace.start`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(command, cwd=place.folder, env=environment, capture_output=True, text=True, timeout=150)


def pretrain(place, *arguments):
    return torchrun(place, "-m", "ckd.pipeline", "pretrain", *arguments)


@pytest.fixture(scope="module")
def trained(training_place, tmp_path_factory):
    """A workplace after `ckd pretrain` on two processes, and what that printed."""
    place = training_place(tmp_path_factory.mktemp("several") / "workplace", EPOCHS)
    done = pretrain(place, "--export", "exported")
    assert done.returncode == 0, done.stderr
    return place, done.stdout


def timeless(lines):
    return [line.split("  ")[1:3] if line.startswith("  ") else line for line in lines]


def test_two_processes_make_one_teacher_each_and_speak_with_one_voice(trained, teachers_in):
    place, out = trained
    made = teachers_in(place.store)
    assert made.keys() == {"pretrain", "adapt"}
    folders = {path.name: path for path in place.store.glob("teachers/*")}
    assert len(folders) == 2
    assert not list(place.store.glob("teachers/.*"))
    dropped, empty, *lines = out.splitlines()
    assert dropped.startswith("text of other: 40 items in "), "pre-training reads the texts with words left out, too"
    assert empty.startswith("text of other: 1 of 40 items have none")
    assert timeless(lines[:EPOCHS]) == [["own, pre-training", f"epoch {epoch}"] for epoch in range(1, EPOCHS + 1)]
    assert timeless(lines[EPOCHS + 1 : -1]) == [["own, tiny", f"epoch {epoch}"] for epoch in range(EPOCHS + 1)]
    assert [line.split(": ")[0] for line in (lines[EPOCHS], lines[-1])] == ["own, pretrained", "own, tiny"]
    assert {path.name for path in (place.folder / "exported" / "own").iterdir()} == {"pretrained", "tiny"}


def test_one_process_finds_what_two_have_trained(trained):
    place, _ = trained
    done = place.ckd("pretrain")
    assert done.returncode == 0, done.stderr
    assert " epoch " not in done.stdout


def test_a_killed_process_ends_the_other_and_both_go_on_to_the_same_bytes(
    trained, training_place, teachers_in, mortal, tmp_path
):
    place = training_place(tmp_path / "workplace", EPOCHS)
    (place.folder / "mortal.py").write_text(mortal("open", WRITING, EPOCHS + 3))
    killed = torchrun(place, "mortal.py", "pretrain")
    assert killed.returncode != 0
    done = pretrain(place)
    assert done.returncode == 0, done.stderr
    said = [line.strip() for line in done.stdout.splitlines() if "interrupted" in line]
    assert said == ["own, tiny  goes on after epoch 1 of an interrupted run"]
    assert repr(teachers_in(place.store)) == repr(teachers_in(trained[0].store))


def test_a_mistake_of_the_user_is_told_once(training_place, tmp_path):
    place = training_place(tmp_path / "workplace", EPOCHS)
    done = pretrain(place, "--set", "teachers.own.pretrain.epochs=0")
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if "error: " in line]
    assert told == ["error: --set teachers.own.pretrain.epochs=0: must be 1 or more, not 0"]


def test_a_mistake_that_only_the_first_process_meets_is_told_once_and_ends_both(training_place, tmp_path):
    """The raw file of another source is read by the first process alone."""
    place = training_place(tmp_path / "workplace", EPOCHS)
    (place.folder / "broken").mkdir()
    for name in ("items", "interactions"):
        (place.folder / "broken" / f"{name}.parquet").write_bytes(b"no Parquet")
    done = pretrain(place, "--set", "sources.other.path=broken")
    assert done.returncode != 0
    (told,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert "broken" in told
