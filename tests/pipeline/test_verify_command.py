"""`ckd verify`: every damage in every kind of artifact is named, and what can be made again is, byte for byte."""

import os
import shutil
import signal
import time

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ckd.storage.artifact import load_artifact
from ckd.storage.draft import FORMER
from ckd.storage.files import sha256_file
from ckd.storage.formats import CURVE
from ckd.storage.manifest import MANIFEST, SPARE, content_of, written
from ckd.storage.parquet import write_table
from ckd.storage.store import Store

SOUND = "all are what was written"
WHOLE = "made again, byte for byte what it was"
PLACES = {
    "corpus": "corpus/*/items.parquet",
    "text": "text/*/vectors.parquet",
    "teachers": "teachers/*/model.safetensors",
    "vectors": "vectors/*/vectors.parquet",
    "labels": "labels/teacher=uni/*/*/part-00002.parquet",
    "labels, vectors": "labels/teacher=uni/*/*/vectors.parquet",
    "labels of folds": "labels/teacher=ids/*/*/part-00001.parquet",
    "labels of folds, vectors": "labels/teacher=ids/*/*/vectors-fold-2.parquet",
    "agreement": "agreement/*/agreement.parquet",
    "runs": "runs/*/model.safetensors",
}
REMADE = [kind for kind in PLACES if kind not in ("teachers", "runs")]
HOWS = {"flip": "other bytes than were written", "cut": "torn: size differs, ", "remove": "missing"}


def damage(path, how):
    content = path.read_bytes()
    if how == "flip":
        half = len(content) // 2
        path.write_bytes(content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :])
    elif how == "cut":
        path.write_bytes(content[:-1])
    else:
        path.unlink()


def file_of(place, kind):
    return sorted(place.store.glob(PLACES[kind]))[0]


def digests(folder):
    return {path.relative_to(folder): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def identities(folder):
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def files_of(store):
    """Digests of everything but locks and manifests, which say how long it took."""
    found = digests(store)
    return {path: digest for path, digest in found.items() if path.parts[0] != "locks" and "manifest" not in path.name}


# --- the check


def test_a_sound_store_is_said_to_be_sound_with_what_was_read_and_nothing_is_touched(made_once, ckd):
    before = digests(made_once.store)
    code, (checked, said), _ = ckd(made_once.folder, "verify")
    assert (code, said) == (0, SOUND)
    artifacts = [load_artifact(path.parent) for path in made_once.store.rglob(MANIFEST)]
    receipts = [receipt for artifact in artifacts for receipt in artifact.files.values()]
    size = sum(receipt.bytes for receipt in receipts)
    assert checked.startswith(f"check of {len(artifacts)} artifacts, {size / 1e6:.1f} MB: {len(receipts)} files in ")
    assert checked.endswith(" MB/s)")
    assert digests(made_once.store) == before


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", PLACES)
def test_a_damaged_file_of_any_kind_is_named_with_what_is_wrong_and_the_code_is_1(kept, ckd, kind, how):
    path = file_of(kept, kind)
    damage(path, how)
    code, (_, line, last), _ = ckd(kept.folder, "verify")
    assert code == 1
    assert line.startswith(f"{path}: {HOWS[how]}")
    assert last.startswith("1 of ")


def test_all_damages_are_named_each_on_its_line(kept, ckd):
    for kind in PLACES:
        damage(file_of(kept, kind), "flip")
    code, lines, _ = ckd(kept.folder, "verify")
    assert code == 1
    assert sorted(lines[1:-1]) == sorted(f"{file_of(kept, kind)}: {HOWS['flip']}" for kind in PLACES)


def test_artifacts_that_the_configuration_does_not_know_are_checked_too(kept, ckd):
    damage(file_of(kept, "labels"), "flip")
    (kept.folder / "pipeline.yaml").write_text("store: store\ndomains:\n  other: {path: nowhere}\n")
    code, (_, line, _), _ = ckd(kept.folder, "verify")
    assert (code, line) == (1, f"{file_of(kept, 'labels')}: {HOWS['flip']}")


def test_an_interrupted_run_whose_files_are_torn_is_no_damage(kept, ckd):
    labels = file_of(kept, "labels").parent
    partial = labels.with_name(f".{labels.name}.partial")
    Store(kept.store).reopen(load_artifact(labels), [])
    (partial / FORMER).unlink()
    damage(partial / "part-00000.parquet", "cut")
    code, (_, line, last), _ = ckd(kept.folder, "verify")
    assert (code, last) == (0, SOUND)
    assert line.startswith(f"{partial / 'part-00000.parquet'}: torn: ")
    assert line.endswith("will be made again, no harm is done")


# --- copies of manifests


@pytest.mark.parametrize("how", HOWS)
def test_a_manifest_is_put_back_from_its_spare_copy_and_the_copy_from_the_manifest(kept, ckd, how):
    before = digests(kept.store)
    manifest, spare = file_of(kept, "runs").parent / MANIFEST, file_of(kept, "labels").parent / SPARE
    for path in (manifest, spare):
        damage(path, how)
    code, lines, _ = ckd(kept.folder, "verify")
    assert (code, len(lines)) == (1, 4)
    code, lines, _ = ckd(kept.folder, "verify", "--repair")
    assert code == 0
    assert f"{manifest}: restored from its spare copy" in lines
    assert f"{spare}: written anew from the manifest" in lines
    after = digests(kept.store)
    assert {path: after[path] for path in before if path.parts[0] != "locks"} == {
        path: digest for path, digest in before.items() if path.parts[0] != "locks"
    }
    assert ckd(kept.folder, "verify")[0] == 0


def test_copies_are_mended_of_what_the_configuration_does_not_know_too(kept, ckd):
    manifest = file_of(kept, "labels").parent / MANIFEST
    damage(manifest, "flip")
    code, lines, _ = ckd(kept.folder, "verify", "--repair", "--set", "labels.top_k=3")
    assert (code, lines[-1]) == (0, f"{manifest}: restored from its spare copy")


# --- what is made again


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", REMADE)
def test_a_damaged_file_is_made_again_byte_for_byte(kept, ckd, kind, how):
    before = files_of(kept.store)
    path = file_of(kept, kind)
    damage(path, how)
    code, lines, _ = ckd(kept.folder, "verify", "--repair")
    assert (code, lines[-1]) == (0, f"{path.parent}: {WHOLE}")
    assert files_of(kept.store) == before
    code, lines, _ = ckd(kept.folder, "verify")
    assert (code, lines[-1]) == (0, SOUND)


def test_of_labels_just_the_bad_shards_are_made_again_and_the_rest_is_not_written(kept, ckd):
    folder = file_of(kept, "labels").parent
    before, were = digests(folder), identities(folder)
    assert len(before) > 6
    damage(folder / "part-00002.parquet", "flip")
    damage(folder / "part-00004.parquet", "remove")
    bad = load_artifact(folder)
    code, lines, _ = ckd(kept.folder, "verify", "--repair")
    assert (code, lines[-1]) == (0, f"{folder}: {WHOLE}")
    assert bad is None
    assert "from an interrupted run" in lines[-2]
    assert digests(folder) == before  # the manifest too
    now = identities(folder)
    kept_parts = [name for name in were if name.startswith("part-") and name[5:10] not in ("00002", "00004")]
    assert {name: now[name] for name in kept_parts} == {name: were[name] for name in kept_parts}


def test_a_damaged_manifest_without_a_copy_is_no_hindrance(kept, ckd):
    before = files_of(kept.store)
    folder = file_of(kept, "labels").parent
    for name in (MANIFEST, SPARE):
        damage(folder / name, "flip")
    code, lines, _ = ckd(kept.folder, "verify", "--repair", "--set", "labels.shard_rows=40")
    assert (code, lines[-1]) == (0, f"{folder}: made again; no manifest tells what it held before")
    assert files_of(kept.store) == before


def test_everything_damaged_at_once_is_mended_as_far_as_it_goes(kept, ckd):
    before = files_of(kept.store)
    for kind in REMADE:
        damage(file_of(kept, kind), "flip")
    code, lines, _ = ckd(kept.folder, "verify", "--repair")
    assert code == 0
    assert sum(line.endswith(WHOLE) for line in lines) == len({file_of(kept, kind).parent for kind in REMADE})
    assert files_of(kept.store) == before


def test_other_bytes_than_were_recorded_are_said_loudly(kept, ckd):
    """As after an update of a library: the record is of bytes that nothing gives any more."""
    labels = file_of(kept, "labels").parent
    artifact = load_artifact(labels)
    receipts = {name: receipt.as_json() for name, receipt in artifact.files.items()}
    receipts["part-00002.parquet"]["sha256"] = "0" * 64
    text = written({**content_of(artifact.manifest), "files": receipts})
    for name in (MANIFEST, SPARE):
        (labels / name).write_text(text)
    code, lines, _ = ckd(kept.folder, "verify", "--repair")
    assert code == 1
    assert lines[-1].startswith(f"{labels}: MADE AGAIN WITH OTHER BYTES THAN IT HAD in part-00002.parquet: ")
    assert ckd(kept.folder, "verify")[1][-1] == SOUND


# --- what is not


@pytest.mark.parametrize("kind", ["teachers", "runs"])
def test_a_damaged_curve_puts_nothing_out_of_use(kept, ckd, kind):
    folder = file_of(kept, kind).parent
    damage(folder / CURVE, "flip")
    code, lines, _ = ckd(kept.folder, "verify", "--repair")
    assert code == 1
    assert lines[-1] == f"{folder / CURVE}: left as it is, it decides nothing; what it is of stays in use"
    assert load_artifact(folder) is not None


@pytest.mark.parametrize(("kind", "command"), [("teachers", "pretrain"), ("runs", "distill")])
def test_what_takes_long_to_train_is_taken_out_of_use_and_its_command_makes_it_again(kept, ckd, kind, command):
    path = file_of(kept, kind)
    good, inode = sha256_file(path), path.stat().st_ino
    damage(path, "flip")
    code, lines, _ = ckd(kept.folder, "verify", "--repair")
    assert code == 1
    assert lines[-1] == f"{path.parent}: taken out of use, its files stay; run `ckd {command}` to train it again"
    assert load_artifact(path.parent) is None
    assert path.stat().st_ino == inode
    again = ckd(kept.folder, "verify", "--repair")[1][1:]
    assert again == [f"{path.parent / MANIFEST}: missing manifest; its spare copy is sound", *lines[1:]]
    assert ckd(kept.folder, command)[0] == 0
    assert sha256_file(path) == good
    assert ckd(kept.folder, "verify")[0] == 0


def test_labels_of_another_configuration_are_left_with_what_they_would_need(kept, ckd):
    path = file_of(kept, "labels")
    inputs = load_artifact(path.parent).inputs
    damage(path, "cut")
    before = digests(kept.store)
    code, lines, _ = ckd(kept.folder, "verify", "--repair", "--set", "labels.top_k=3")
    assert code == 1
    weights = inputs["teacher"]["model.safetensors"]
    assert lines[-1].startswith(f"{path.parent}: left as it is: it is not of this configuration; it can be made again")
    for said in ("kind unisrec", f"model.safetensors {weights[:8]}", f"corpus {inputs['corpus'][:16]}"):
        assert said in lines[-1]
    assert digests(kept.store) == before


def test_labels_whose_teacher_is_not_trained_are_left_and_that_is_said(kept, ckd):
    teacher, labels = file_of(kept, "teachers"), file_of(kept, "labels of folds")
    damage(teacher, "flip")
    damage(labels, "flip")
    code, lines, _ = ckd(kept.folder, "verify", "--repair")
    assert code == 1
    assert lines[-1].startswith(f"{labels.parent}: left as it is: it may be of this configuration, but teacher ids")
    assert labels.exists()
    for command in ("pretrain", "verify --repair"):
        code, lines, _ = ckd(kept.folder, *command.split())
        assert code == 0, lines
    assert lines[-1] == f"{labels.parent}: {WHOLE}"


def test_what_cannot_be_made_again_says_why_and_stays(kept, ckd, world, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(world.raw, raw)
    text = (kept.folder / "pipeline.yaml").read_text()
    (kept.folder / "pipeline.yaml").write_text(text.replace(str(world.raw), str(raw)))
    path = file_of(kept, "corpus")
    damage(path, "flip")
    (raw / "items.parquet").rename(raw / "elsewhere.parquet")
    before = digests(kept.store)
    code, lines, _ = ckd(kept.folder, "verify", "--repair")
    assert code == 1
    assert lines[-1].startswith(
        f"{path.parent}: left as it is: it may be of this configuration, but {raw} has no items"
    )
    assert digests(kept.store) == before


# --- interrupted, and several at once


def test_an_interrupted_repair_is_gone_on_with_by_the_same_command(kept, ckd):
    before = files_of(kept.store)
    folder = file_of(kept, "labels").parent
    damage(folder / "part-00002.parquet", "flip")
    Store(kept.store).reopen(load_artifact(folder), ["part-00002.parquet"])  # and killed there
    code, lines, _ = ckd(kept.folder, "verify")
    assert code == 1
    assert lines[-1] == f"{folder}: its repair was begun and not finished; `ckd verify --repair` goes on with it"
    code, lines, _ = ckd(kept.folder, "verify", "--repair")
    assert (code, lines[-1]) == (0, f"{folder}: {WHOLE}")
    assert files_of(kept.store) == before


def wait_for(condition, process):
    for _ in range(60_000):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    pytest.fail("it did not come")


def test_a_killed_repair_leaves_what_the_next_one_finishes_to_the_same_bytes(kept, ckd):
    before = files_of(kept.store)
    folder = file_of(kept, "labels").parent
    partial = folder.with_name(f".{folder.name}.partial")
    for number in range(4):
        damage(folder / f"part-0000{number}.parquet", "flip")
    process = kept.start("verify", "--repair")
    wait_for(lambda: (partial / FORMER).exists(), process)
    process.kill()
    process.communicate()
    code, lines, _ = ckd(kept.folder, "verify", "--repair")
    assert (code, lines[-1]) == (0, f"{folder}: {WHOLE}")
    assert files_of(kept.store) == before


def test_while_another_process_writes_the_labels_a_repair_is_refused_with_one_line(kept, ckd):
    folder = file_of(kept, "labels").parent
    damage(folder / "part-00002.parquet", "cut")
    process = kept.start("precompute")  # the torn ones do not exist for it: it makes them anew
    partial = folder.with_name(f".{folder.name}.partial")
    wait_for(partial.exists, process)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        code, _, error = ckd(kept.folder, "verify", "--repair")
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert code == 2
    assert error.count("\n") == 1
    assert f"is being written by process {process.pid} " in error
    process.communicate()
    assert process.returncode == 0
    assert ckd(kept.folder, "verify")[0] == 0


def test_of_two_repairs_at_once_one_is_refused_or_finds_all_mended(kept, ckd):
    before = files_of(kept.store)
    damage(file_of(kept, "labels"), "flip")
    both = [kept.start("verify", "--repair") for _ in range(2)]
    ends = [(process.communicate(timeout=120), process.returncode) for process in both]
    assert 0 in [code for _, code in ends]
    for (_, error), code in ends:
        if code != 0:
            assert (code, error.count("\n")) == (2, 1)
            assert "is being written by" in error
    assert ckd(kept.folder, "verify")[0] == 0
    assert files_of(kept.store) == before


# --- the teachers asked again


def test_on_the_same_machine_a_teacher_says_the_same_bits_again_and_nothing_is_written(made_once, ckd):
    before = digests(made_once.store)
    code, lines, _ = ckd(made_once.folder, "verify", "--recompute", "30%")
    assert code == 0
    rows = {line.split()[0]: line.split()[1:] for line in lines if " tiny " in line and "%" in line}
    assert set(rows) == {"uni", "ids", "rec"}
    for domain, users, positions, identical, *rest in rows.values():
        assert (domain, users, identical) == ("tiny", "18", "100.0%")
        assert int(positions) > 18
        assert rest == ["0", "0", "0", "0", "0.0%", "0.0%"]
    assert digests(made_once.store) == before


def rewritten(labels, change):
    """Change every shard and record it as if it had been written so."""
    artifact = load_artifact(labels)
    receipts = {name: receipt.as_json() for name, receipt in artifact.files.items()}
    shards = {name: change(pq.read_table(labels / name)) for name in receipts if name.startswith("part-")}
    for name, table in shards.items():
        write_table(table, labels / name)
        receipts[name] |= {"bytes": (labels / name).stat().st_size, "sha256": sha256_file(labels / name)}
    text = written({**content_of(artifact.manifest), "files": receipts})
    for name in (MANIFEST, SPARE):
        (labels / name).write_text(text)


def test_labels_that_are_not_the_teachers_are_found_though_every_digest_is_right(kept, ckd):
    labels = file_of(kept, "labels").parent
    index = "target_rank"
    rewritten(labels, lambda table: table.set_column(table.column_names.index(index), index, pc.add(table[index], 1)))
    assert ckd(kept.folder, "verify")[0] == 0
    code, lines, _ = ckd(kept.folder, "verify", "--recompute", "5")
    assert code == 1
    assert any(line.startswith("labels of uni for tiny are NOT what the teacher says now") for line in lines)
    (row,) = [line.split() for line in lines if line.startswith("uni ") and "%" in line]
    assert (row[2], row[4], row[-2:]) == ("5", "0.0%", ["0.0%", "100.0%"])


def test_labels_that_are_not_in_the_store_are_said_not_to_be_compared(kept, ckd):
    code, lines, _ = ckd(kept.folder, "verify", "--recompute", "20", "--set", "labels.top_k=3")
    assert code == 0
    said = "are not compared: the store has no labels of this configuration; run `ckd precompute`"
    assert [line for line in lines if "compared" in line] == [
        f"labels of {name} for tiny {said}" for name in ("uni", "ids", "rec")
    ]


@pytest.mark.parametrize("text", ["0", "0%", "1.5", "101%", "-1", "half", "1e-3", "5 %", "", "0.0"])
def test_a_sample_that_is_none_is_refused(made_once, ckd, text):
    code, _, error = ckd(made_once.folder, "verify", "--recompute", text)
    assert code == 2
    assert "is no sample; write a percentage (0.5%), a share (0.005) or a number of users (20)" in error


def test_the_code_of_the_process_is_that_of_the_command(kept):
    damage(file_of(kept, "labels"), "flip")
    done = kept.ckd("verify")
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("kind", ["nothing", "a file"])
def test_a_store_that_is_not_there_is_not_found_to_be_sound(workplace, kind):
    place = workplace.folder / "typo"
    if kind == "a file":
        place.write_text("precious")
    done = workplace.ckd("verify", "--set", f"store={place}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: there is no store at {place}; correct store, or make one with `ckd precompute`\n"
