"""`ckd gc`: what nothing refers to goes, what anything refers to or may refer to stays, and no moment is a bad one."""

import os
import re
import shutil
import signal
import time

import pytest

from ckd.storage.artifact import MAKERS, load_artifact
from ckd.storage.files import sha256_file
from ckd.storage.manifest import MANIFEST, SPARE
from ckd.storage.store import Store

NOTHING = "nothing to remove: a configuration or a run refers to all that is in the store"
ONLY_DRY = "nothing was removed; --delete removes it"


def listed(lines):
    """``{path: (why, MB)}`` of the table."""
    rows = [re.split(r" {2,}", line.rstrip()) for line in lines]
    return {row[0].split(" ")[0]: row[1] for row in rows if len(row) == 3 and "/" in row[0]}


def contents(folder):
    return {path: path.is_dir() or sha256_file(path) for path in folder.rglob("*")}


def artifacts(place, kind):
    store = Store(place.store)
    return {artifact.path.relative_to(place.store).as_posix() for artifact in store.all(kind)}


def everything(place):
    return {path for kind in MAKERS for path in artifacts(place, kind)}


def write(place, change):
    """Change the text of the configuration."""
    path = place.folder / "pipeline.yaml"
    path.write_text(change(path.read_text()))


def without(*names):
    """What takes teachers out of a configuration."""
    return lambda text: re.sub(rf"^  ({'|'.join(names)}):.*\n(    .*\n)*", "", text, flags=re.MULTILINE)


# --- what stays


def test_of_a_store_that_its_configuration_asks_for_nothing_is_listed_and_nothing_is_touched(made_once, ckd):
    before = contents(made_once.store)
    for options in ([], ["--runs"]):
        assert ckd(made_once.folder, "gc", *options) == (0, [NOTHING], "")
    assert contents(made_once.store) == before


def test_what_a_run_was_trained_from_stays_down_to_the_teachers_of_folds_and_item_vectors(kept, ckd):
    write(kept, without("uni", "ids", "rec"))
    write(kept, lambda text: text.replace("teachers:\n", "").replace("max_tokens: 12", "max_tokens: 9"))
    assert set(listed(ckd(kept.folder, "gc")[1])) == artifacts(kept, "agreement")  # nothing is trained from those


def test_without_the_runs_all_that_the_configuration_does_not_ask_for_is_listed(kept, ckd):
    write(kept, without("ids", "rec"))
    code, lines, _ = ckd(kept.folder, "gc", "--runs")
    assert (code, lines[-1]) == (0, ONLY_DRY)
    (taught,) = (run.path.name for run in Store(kept.store).all("runs") if run.inputs["distilled"])
    expected = {f"runs/{taught}", *artifacts(kept, "teachers"), *artifacts(kept, "vectors")}
    expected |= artifacts(kept, "agreement")
    expected |= {path for path in artifacts(kept, "labels") if "teacher=uni" not in path}
    assert set(listed(lines)) == expected
    assert len(artifacts(kept, "teachers")) == 3
    size = sum(file.stat().st_size for path in expected for file in (kept.store / path).iterdir())
    assert lines[-2] == f"{len(expected)} things, {size / 1e6:,.1f} MB"


def test_what_a_further_configuration_asks_for_stays(kept, ckd):
    (kept.folder / "all.yaml").write_text((kept.folder / "pipeline.yaml").read_text())
    write(kept, without("ids", "rec"))
    assert ckd(kept.folder, "gc", "--runs", "--also", "all.yaml")[1] == [NOTHING]


def test_a_further_configuration_of_another_store_is_refused(kept, ckd):
    (kept.folder / "all.yaml").write_text(
        (kept.folder / "pipeline.yaml").read_text().replace("store: store", "store: s")
    )
    code, _, error = ckd(kept.folder, "gc", "--also", "all.yaml")
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith(f"error: --also all.yaml: its store is {kept.folder / 's'}, not {kept.store}")


# --- what cannot be known


def test_where_raw_files_are_gone_all_that_could_be_of_them_stays_and_that_is_said(kept, ckd):
    write(kept, lambda text: re.sub(r"path: [^,]*", "path: nowhere", text))
    code, lines, _ = ckd(kept.folder, "gc", "--runs")
    assert (code, lines[-1]) == (0, NOTHING)
    assert {line.split(": ")[1].split(" of ")[0] for line in lines[:-1]} == set(MAKERS)
    assert all(line.startswith("kept ") and "nowhere does not exist" in line for line in lines[:-1])


def test_labels_of_a_teacher_that_is_not_trained_stay(kept, ckd):
    write(kept, lambda text: text.replace("train: {hidden: 8", "train: {hidden: 4, heads: 1"))
    for run in Store(kept.store).all("runs"):
        shutil.rmtree(run.path)
    code, lines, _ = ckd(kept.folder, "gc")
    assert code == 0
    (labels,) = (path for path in artifacts(kept, "labels") if "teacher=ids" in path)
    assert lines[0].startswith(
        f"kept {kept.store / labels} that may be it: labels of ids, tiny: teacher ids, tiny, fold 1"
    )
    assert "is not trained yet" in lines[0]
    # The teachers of before are what those labels are of.
    assert {path.partition("/")[0] for path in listed(lines)} == {"locks"}


def test_labels_of_a_teacher_with_a_flipped_bit_are_not_taken_for_garbage(kept, ckd):
    """The digest of the damaged weights gives another key, under which there is nothing."""
    for run in Store(kept.store).all("runs"):
        shutil.rmtree(run.path)
    for weights in kept.store.glob("teachers/*/model.safetensors"):
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    code, lines, _ = ckd(kept.folder, "gc", "--delete", "--runs")
    assert code == 0
    assert any("labels of ids, tiny: teacher ids is damaged" in line for line in lines)
    assert len(artifacts(kept, "labels")) == 3


def test_what_a_newer_ckd_wrote_stops_it(kept, ckd):
    from ckd.storage.manifest import _digest, _text

    newer = {"schema": 9}
    path = next(kept.store.glob("runs/*")) / MANIFEST
    path.write_text(_text({**newer, "digest": _digest(newer)}))
    before = contents(kept.store)
    code, _, error = ckd(kept.folder, "gc", "--delete", "--runs")
    assert (code, error.count("\n")) == (2, 1)
    assert contents(kept.store) == before


# --- leftovers


def reopened(place, teacher="uni"):
    labels = next(place.store.glob(f"labels/teacher={teacher}/*/key=*"))
    Store(place.store).reopen(load_artifact(labels), ["part-00000.parquet"])
    return labels.with_name(f".{labels.name}.partial")


def test_an_interrupted_run_stays_if_the_configuration_or_a_run_knows_it_and_goes_if_none_does(kept, ckd):
    partial = reopened(kept)
    assert ckd(kept.folder, "gc")[1] == [NOTHING]
    write(kept, without("uni"))
    name = partial.relative_to(kept.store).as_posix()
    assert name not in listed(ckd(kept.folder, "gc")[1])  # a run was trained from it
    said = listed(ckd(kept.folder, "gc", "--runs")[1])[name]
    assert said == "interrupted, and no configuration would go on with it"


def test_what_is_left_beside_a_finished_artifact_and_of_single_files_goes(kept, ckd):
    labels = next(kept.store.glob("labels/teacher=uni/*/key=*"))
    partial = labels.with_name(f".{labels.name}.partial")
    (partial / ".receipts").mkdir(parents=True)
    half = next(kept.store.glob("corpus/*")) / f".{MANIFEST}.writing"
    half.write_text("half")
    lock = kept.store / "locks" / "text-0123456789abcdef.lock"
    lock.write_text("{}")
    names = [path.relative_to(kept.store).as_posix() for path in (partial, half, lock)]
    before = everything(kept)
    code, lines, _ = ckd(kept.folder, "gc")
    assert (code, list(listed(lines))) == (0, names)
    code, lines, _ = ckd(kept.folder, "gc", "--delete")
    assert (code, lines[-1]) == (0, "removed 3 things, 0.0 MB")
    assert not any(path.exists() for path in (partial, half, lock))
    assert ckd(kept.folder, "gc")[1] == [NOTHING]
    assert everything(kept) == before


def test_a_damaged_folder_stays_where_something_refers_to_it_and_goes_where_nothing_does(kept, ckd):
    vectors = next(kept.store.glob("text/*"))
    unknown = kept.store / "text" / "0123456789abcdef"
    unknown.mkdir()
    (unknown / "vectors.parquet").write_text("whose?")
    for name in (MANIFEST, SPARE):
        (vectors / name).write_text("{}")
    lines = ckd(kept.folder, "gc", "--delete", "--set", "text.max_tokens=9")[1]
    why = {path: reason for path, reason in listed(lines).items() if not path.startswith("agreement/")}
    assert why == {"text/0123456789abcdef": "damaged, and no configuration and no run refers to it"}
    assert not unknown.exists()
    assert vectors.exists()


def test_folders_of_other_names_are_not_touched(kept, ckd):
    notes = kept.store / "text" / "notes"
    notes.mkdir()
    (notes / "a.txt").write_text("mine")
    assert ckd(kept.folder, "gc", "--delete")[1] == [NOTHING]
    assert (notes / "a.txt").exists()


# --- removal


def test_what_is_removed_is_what_was_listed_and_the_rest_is_as_it_was(kept, ckd):
    write(kept, without("ids", "rec"))
    going = set(listed(ckd(kept.folder, "gc", "--runs")[1]))
    there = everything(kept)
    sound = {path: contents(kept.store / path) for path in there - going}
    code, lines, _ = ckd(kept.folder, "gc", "--runs", "--delete")
    assert (code, lines[-1]) == (0, f"removed {lines[-2]}")
    assert everything(kept) == there - going
    assert {path: contents(kept.store / path) for path in sound} == sound
    assert not [path for path in kept.store.rglob("*.lock") if any(name.split("/")[-1] in path.name for name in going)]
    assert ckd(kept.folder, "gc", "--runs")[1] == [NOTHING]
    assert ckd(kept.folder, "verify")[0] == 0


def wait_for(condition, process):
    for _ in range(60_000):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    pytest.fail("it did not come")


def test_while_another_process_writes_anything_nothing_is_removed(kept, ckd):
    write(kept, without("rec"))
    process = kept.start("precompute", "--set", "labels.top_k=3", "--set", "labels.shard_rows=8")
    wait_for(lambda: any(kept.store.glob("labels/*/*/.key=*.partial")), process)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        before = contents(kept.store)
        code, _, error = ckd(kept.folder, "gc", "--runs", "--delete")
        assert (code, error.count("\n")) == (2, 1)
        assert f"is being written by process {process.pid} " in error
        assert contents(kept.store) == before
    finally:
        os.kill(process.pid, signal.SIGCONT)
        process.communicate()
    assert process.returncode == 0


def test_killed_at_any_point_it_leaves_a_sound_store_and_the_next_call_goes_on(kept, ckd):
    write(kept, without("ids", "rec"))
    going = set(listed(ckd(kept.folder, "gc", "--runs")[1]))
    stays = everything(kept) - going
    for gone in range(1, len(going)):
        process = kept.start("gc", "--runs", "--delete")
        try:
            wait_for(lambda gone=gone: len(everything(kept)) <= len(stays) + len(going) - gone, process)
        except AssertionError:
            break  # it was faster
        process.kill()
        process.communicate()
        assert ckd(kept.folder, "verify")[0] == 0
        assert everything(kept) >= stays
    assert ckd(kept.folder, "gc", "--runs", "--delete")[0] == 0
    assert everything(kept) == stays
    assert ckd(kept.folder, "gc", "--runs")[1] == [NOTHING]
    assert not list(kept.store.rglob("*.partial"))
