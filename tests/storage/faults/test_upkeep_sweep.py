"""Every call that `ckd verify --repair` and `ckd gc --delete` make of the disk fails once, in each way."""

import shutil
from itertools import count

import pytest
from test_sweep import HOW, check_the_end

from ckd.storage.artifact import MAKERS
from ckd.storage.labels import part_name
from ckd.storage.manifest import MANIFEST, SPARE
from ckd.storage.vectors import VECTORS

pytestmark = pytest.mark.faults

STRIDE = 64


def numbers(how, long):
    """Which calls fail."""
    return count(1) if long else count(1 + HOW.index(how) * STRIDE // len(HOW), STRIDE)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def damaged(undisturbed, make_place, tmp_path_factory):
    """A place of whose store some of every kind is damaged, and what."""
    place = make_place(tmp_path_factory.mktemp("damaged") / "place", undisturbed.folder / "disk")
    (corpus,), (text,), (labels,) = (place.store.all(kind) for kind in ("corpus", "text", "labels"))
    files = [labels.path / part_name(0), labels.path / MANIFEST, text.path / VECTORS, corpus.path / MANIFEST]
    for path in files:
        flip(path)
    (text.path / SPARE).unlink()
    return place, {path.name for path in files}


@pytest.mark.parametrize("how", HOW)
def test_a_repair_that_fails_at_any_call_damages_nothing_more_and_is_ended_by_a_rerun(
    how, long, damaged, make_place, driver, whole, tmp_path, counted
):
    place, names = damaged
    failures = 0
    for n in numbers(how, long):
        mended = make_place(tmp_path / str(n), place.folder / "disk")
        outcome = driver.run(mended.folder, "verify", "--repair", fault=(how, n), seed=n)
        if not outcome.failed:
            break
        failures += 1
        check_the_end(outcome, how)
        artifacts = [artifact for kind in MAKERS for artifact in mended.store.all(kind)]
        assert {name for each in artifacts for name in each.files if not each.sound(name)} <= names, n
        if failures % 2:  # what the user may do as well
            assert driver.run(mended.folder, "precompute").code in (0, 2)
        again = driver.run(mended.folder, "verify", "--repair")
        assert (again.code, again.err) == (0, ""), n
        assert mended.artifacts() == whole, n
        shutil.rmtree(mended.folder)
    assert (outcome.code, outcome.err) == (0, "")
    assert mended.artifacts() == whole
    counted(f"faults: {how}: {failures} of {outcome.calls} calls of `ckd verify --repair` failed; all survived")


@pytest.fixture(scope="module")
def with_waste(undisturbed, make_place, driver, tmp_path_factory):
    """A place with labels, and a part of labels, that its configuration does not ask for."""
    place = make_place(tmp_path_factory.mktemp("waste") / "place", undisturbed.folder / "disk")
    assert driver.run(place.folder, "precompute", "--set", "labels.top_k=3").code == 0
    halfway = driver.run(place.folder, "precompute", "--set", "labels.top_k=4", fault=("kill before", 40))
    assert halfway.code < 0 and place.store.partials() != []
    return place


@pytest.mark.parametrize("how", HOW)
def test_a_removal_that_fails_at_any_call_leaves_nothing_half_and_is_ended_by_a_rerun(
    how, long, with_waste, make_place, driver, whole, tmp_path, counted
):
    before = with_waste.artifacts()
    assert whole.items() < before.items()
    failures, stride = 0, 1 if long else 7
    for n in count(1 if long else 1 + HOW.index(how) % stride, stride):
        place = make_place(tmp_path / str(n), with_waste.folder / "disk")
        outcome = driver.run(place.folder, "gc", "--delete", fault=(how, n), seed=n)
        if not outcome.failed:
            break
        failures += 1
        check_the_end(outcome, how)
        assert whole.items() <= place.artifacts().items() <= before.items(), n
        again = driver.run(place.folder, "gc", "--delete")
        assert (again.code, again.err) == (0, ""), n
        assert place.artifacts() == whole, n
        assert place.store.partials() == []
        shutil.rmtree(place.folder)
    assert (outcome.code, outcome.err) == (0, "")
    assert place.artifacts() == whole
    counted(f"faults: {how}: {failures} of {outcome.calls} calls of `ckd gc --delete` failed; all survived")
