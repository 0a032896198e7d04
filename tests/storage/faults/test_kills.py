"""`kill -9` at random moments of a real precompute, from the raw files to the last label."""

import random
import shutil
import signal
import time

import pytest

from ckd.pipeline.mishaps import GO_ON, INTERRUPTED

pytestmark = pytest.mark.faults

KILLS = {"short": 100, "long": 1000}
INTERRUPTS = {"short": 10, "long": 200}
COMMANDS = {"short": 1, "long": 30}
"""Kills of a process that was started as users start it, which takes seconds."""


def test_killed_at_random_moments_again_and_again_it_ends_with_the_same_bytes(
    pytestconfig, make_place, driver, whole, tmp_path, counted
):
    wanted = KILLS[pytestconfig.getoption("faults")]
    draw = random.Random(wanted)
    place = make_place(tmp_path / "timed")
    full = driver.run(place.folder, "precompute").seconds
    kills = writing = ends = 0
    while kills < wanted or not ends:
        moment = draw.uniform(0.05, 0.5) * full if kills < wanted else None
        outcome = driver.run(place.folder, "precompute", kill_after=moment)
        if outcome.code == -signal.SIGKILL:
            kills += 1
            writing += place.store.partials() != []
            assert place.artifacts().items() <= whole.items()
            continue
        assert (outcome.code, outcome.err) == (0, "")
        assert place.artifacts() == whole
        assert place.store.partials() == []
        ends += 1
        shutil.rmtree(place.folder)
        place = make_place(tmp_path / str(ends))
    assert writing > wanted // 10
    counted(
        f"faults: {kills} kills with SIGKILL at random moments, {writing} of them while something was written; "
        f"{ends} stores were finished, with the same bytes"
    )


def test_interrupted_at_random_moments_it_says_how_to_go_on_and_ends_with_the_same_bytes(
    pytestconfig, make_place, driver, whole, tmp_path, counted
):
    wanted = INTERRUPTS[pytestconfig.getoption("faults")]
    draw = random.Random(wanted)
    place = make_place(tmp_path / "timed")
    full = driver.run(place.folder, "precompute").seconds
    interrupted = 0
    while interrupted < wanted:
        place = make_place(tmp_path / "place")
        moment = draw.uniform(0.05, 0.7) * full
        outcome = driver.run(place.folder, "precompute", kill_after=moment, kill_with=signal.SIGINT)
        said = outcome.err.strip()  # click ends the line in which ^C stands
        assert (outcome.code, said) in ((INTERRUPTED, GO_ON), (0, "")), outcome
        assert place.artifacts().items() <= whole.items()
        interrupted += outcome.code == INTERRUPTED
        again = driver.run(place.folder, "precompute")
        assert (again.code, again.err) == (0, "")
        assert place.artifacts() == whole
        assert place.store.partials() == []
        full = min(full, outcome.seconds) if outcome.code == 0 else full  # the timed run may have been a slow one
        shutil.rmtree(place.folder)
    counted(f"faults: {interrupted} interrupts with SIGINT at random moments, each answered with one line")


def test_the_command_itself_killed_at_random_moments_ends_with_the_same_bytes(
    pytestconfig, make_place, driver, start, whole, tmp_path, counted
):
    wanted = COMMANDS[pytestconfig.getoption("faults")]
    draw = random.Random(wanted)
    place = make_place(tmp_path / "place")
    kills = 0
    while kills < wanted:
        process = start(place.folder, "precompute")
        while process.poll() is None and not any((place.folder / "disk").rglob("*.partial")):
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.2))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        assert place.artifacts().items() <= whole.items()
        if process.returncode == 0:
            shutil.rmtree(place.folder / "disk" / "store")
    last = driver.run(place.folder, "precompute")
    assert (last.code, last.err) == (0, "")
    assert place.artifacts() == whole
    counted(f"faults: {kills} kills of the command `ckd precompute`")


def test_of_two_commands_at_once_one_makes_all_and_the_other_makes_nothing_or_says_who_does(
    make_place, start, whole, tmp_path
):
    place = make_place(tmp_path / "place")
    both = [start(place.folder, "precompute") for _ in range(2)]
    ends = [(process.communicate()[1], process.returncode) for process in both]
    assert place.artifacts() == whole
    assert 0 in [code for _, code in ends]
    for (err, code), other in zip(ends, reversed(both), strict=True):
        if code:
            assert code == 2
            assert f"is being written by process {other.pid} on " in err
            assert err.count("\n") == 1
        else:
            assert err == ""
