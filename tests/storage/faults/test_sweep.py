"""Every call that `ckd precompute` makes of the disk fails once, in each way, from the raw files on."""

import shutil
import signal
from itertools import count

import pytest
from failing import FAILURES

from ckd.pipeline.mishaps import GO_ON, INTERRUPTED

pytestmark = pytest.mark.faults

POWER_CUT = "power cut"
HOW = (*FAILURES, POWER_CUT)
STRIDE = 24
"""Of the short version: each way begins at another call, so that every third call fails in one way."""
OFF = 99
ENDS = {
    "no space": (2, "error: disk full"),
    "I/O error": (2, "error: the disk fails"),
    "I/O error, done": (2, "error: the disk fails"),
    "disk gone": (2, "error: the disk fails"),
    "Ctrl-C": (INTERRUPTED, GO_ON),
    "kill before": (-signal.SIGKILL, ""),
    "kill within": (-signal.SIGKILL, ""),
    POWER_CUT: (OFF, ""),
}
"""How a run ends: its exit code, and how the only line that it prints to standard error begins, if it prints one."""


def check_the_end(outcome, how):
    if (how, outcome.code) == ("no space", 0):
        return  # where only removals are left to do, that is no obstacle
    code, line = ENDS[how]
    assert outcome.code == code
    said = outcome.err.strip()  # click ends the line in which ^C stands
    assert said.startswith(line) and len(said.splitlines()) == int(line != ""), said


@pytest.mark.parametrize("how", HOW)
def test_whatever_call_fails_nothing_is_half_and_a_plain_rerun_ends_with_the_same_bytes(
    how, long, make_place, driver, whole, tmp_path, counted
):
    stride = 1 if long else STRIDE
    first = 1 if long else 1 + HOW.index(how) * STRIDE // len(HOW)
    failures = 0
    for n in count(first, stride):
        place = make_place(tmp_path / str(n))
        outcome = driver.run(place.folder, "precompute", fault=(how, n), seed=n)
        if not outcome.failed:
            break
        failures += 1
        check_the_end(outcome, how)
        assert place.artifacts().items() <= whole.items(), n
        again = driver.run(place.folder, "precompute")
        assert (again.code, again.err) == (0, ""), n
        assert place.artifacts() == whole, n
        assert place.store.partials() == []
        shutil.rmtree(place.folder)
    assert (outcome.code, outcome.err) == (0, "")
    assert place.artifacts() == whole
    assert failures >= 100 // stride
    counted(f"faults: {how}: {failures} of {outcome.calls} calls of the disk failed, one in each run; all survived")


def test_what_a_finished_command_made_survives_a_power_cut_right_after_it(
    long, make_place, driver, whole, tmp_path, counted
):
    cuts = 40 if long else 4
    for seed in range(cuts):
        place = make_place(tmp_path / str(seed))
        never = 10**9
        outcome = driver.run(place.folder, "precompute", fault=(POWER_CUT, never), seed=seed)
        assert (outcome.code, outcome.err) == (0, "")
        assert place.artifacts() == whole, seed
        assert driver.run(place.folder, "precompute").calls == 0, "nothing is made again"
    counted(f"faults: {cuts} power cuts right after the end of a command; nothing was lost")
