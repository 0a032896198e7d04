"""`ckd pretrain` killed, interrupted and started again: real processes over real files."""

import json
import signal
import time

import pytest

from ckd.storage.progress import TRAINING_STATES

EPOCHS = 5
WRITING = tuple(f".{name}.writing" for name in TRAINING_STATES)
RECEIPTS = tuple(f".{name}.json.writing" for name in TRAINING_STATES)
ASK = """\
import sys
from ckd.pipeline.cli import main

code = main()
sys.exit(code or "torch" in sys.modules)
"""


# What kills each `ckd pretrain` after the other, and what the next one says it goes on after.
DEATHS = [
    ("open", WRITING, 1, None),
    ("open", WRITING, 3, "own, pre-training  goes on after epoch 2"),
    ("os.rename", WRITING, 1, "own, pre-training  goes on after epoch 2"),
    ("os.rename", RECEIPTS, 1, "own, pre-training  goes on after epoch 2"),
    ("open", ".model.safetensors.writing", 1, f"own, pre-training  goes on after epoch {EPOCHS}"),
    ("open", WRITING, 1, None),
    ("open", WRITING, 2, "own, tiny  goes on after epoch 0"),
    ("open", WRITING, 4, "own, tiny  goes on after epoch 3"),
    ("open", ".model.safetensors.writing", 1, f"own, tiny  goes on after epoch {EPOCHS}"),
]


@pytest.fixture(scope="module")
def whole(training_place, teachers_in, tmp_path_factory):
    """What an undisturbed `ckd pretrain` leaves."""
    place = training_place(tmp_path_factory.mktemp("whole") / "workplace", EPOCHS)
    done = place.ckd("pretrain")
    assert done.returncode == 0, done.stderr
    assert "interrupted" not in done.stdout
    return teachers_in(place.store)


@pytest.fixture
def place(training_place, tmp_path):
    return training_place(tmp_path / "workplace", EPOCHS)


def again(place):
    """Run `ckd pretrain` to its end; return the lines that speak of an interruption."""
    done = place.ckd("pretrain")
    assert done.returncode == 0, done.stderr
    assert not list(place.store.glob("teachers/.*"))
    return spoken(done.stdout)


def spoken(out):
    return [line.strip() for line in out.splitlines() if "interrupted" in line]


def wait_for_epoch(place, process, epoch):
    """Return as soon as the state after some epoch, or a later one, has its receipt."""
    for _ in range(60_000):
        for path in place.store.glob("teachers/.*.partial/.receipts/training-state-*.json"):
            try:
                if json.loads(path.read_text())["receipt"]["facts"]["epoch"] >= epoch:
                    return
            except FileNotFoundError:
                continue
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    pytest.fail("no state appeared")


def test_the_training_of_these_tests_has_its_best_epoch_before_the_kill(whole):
    assert whole.keys() == {"pretrain", "adapt"}
    assert whole["pretrain"].facts["epochs"] == whole["adapt"].facts["epochs"] == EPOCHS
    assert whole["adapt"].facts["best_epoch"] < 4
    assert whole["adapt"].files != whole["pretrain"].files


def test_killed_at_one_moment_after_the_other_it_ends_with_the_same_bytes(place, mortal, teachers_in, whole):
    """Within the write of a state, before it and its receipt are in place, between two epochs, after the last one."""
    expected = None
    for event, ending, count, then in DEATHS:
        done = place.ckd("pretrain", code=mortal(event, ending, count))
        assert done.returncode == -signal.SIGKILL, (ending, count, done)
        assert spoken(done.stdout) == ([] if expected is None else [f"{expected} of an interrupted run"])
        expected = then
    assert again(place) == [f"{expected} of an interrupted run"]
    assert repr(teachers_in(place.store)) == repr(whole)


def test_killed_from_outside_it_goes_on_after_the_last_whole_epoch(place, teachers_in, whole):
    process = place.start("pretrain")
    wait_for_epoch(place, process, 2)
    process.kill()
    out, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    (line,) = again(place)
    reached = int(line.split("goes on after epoch ")[1].split()[0])
    assert reached >= 2
    assert f"epoch {reached + 1}  " not in out
    assert repr(teachers_in(place.store)) == repr(whole)


def test_an_interrupt_is_answered_with_one_line_and_the_epochs_are_kept(place, teachers_in, whole):
    process = place.start("pretrain")
    wait_for_epoch(place, process, 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "interrupted; run the same command again to go on"
    assert len(again(place)) == 1
    assert repr(teachers_in(place.store)) == repr(whole)


def test_status_says_after_which_epoch_it_will_go_on_and_imports_no_torch(place, mortal):
    killed = place.ckd("pretrain", code=mortal("open", WRITING, 3))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = place.ckd("status", code=ASK, cold=True)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "pre-trained" in line and " teacher " in line]
    assert "resume (after epoch 2)  an earlier run was stopped" in line
