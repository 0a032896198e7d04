"""The check of a store: each damaged file is named with what is wrong of it, on a disk and in an object store."""

import json
import subprocess
import sys

import pytest

from ckd.storage.artifact import described
from ckd.storage.draft import FORMER
from ckd.storage.errors import Busy, UserError
from ckd.storage.files import bytes_below
from ckd.storage.keys import Address
from ckd.storage.location import inside
from ckd.storage.manifest import MANIFEST, SPARE, content_of
from ckd.storage.store import Store, address_of
from ckd.storage.upkeep import MISSING, OTHER_BYTES, bytes_to_read, checked, conditions, leftovers

pytest.importorskip("upath")

TEXT = Address("text", {"corpus": "ä", "format": 1})
LABELS = Address("labels", {"a": 1}, (("teacher", "uni"), ("domain", "office")))
FILES = {"a": "first file", "b": "second file", "c": "third file"}
HOLD = (
    "import sys; from pathlib import Path; from ckd.storage.lock import exclusive\n"
    "with exclusive(Path(sys.argv[1]), 'it'):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture(params=["disk", "object store"])
def store(request, tmp_path, monkeypatch):
    """A store on a disk, and one in an object store, each of its own."""
    monkeypatch.setenv("CKD_CACHE", str(tmp_path / "cache"))
    return Store(tmp_path / "store" if request.param == "disk" else f"memory://{tmp_path.name}/store")


@pytest.fixture
def on_disk(tmp_path):
    return Store(tmp_path / "store")


def committed(store, address=TEXT, **files):
    with store.draft(address) as draft:
        for name, text in (files or FILES).items():
            draft.add(name, lambda path, text=text: path.write_text(text), rows=len(text), facts={"of": name})
        return draft.commit({"answer": 42})


def damage(path, how):
    """Change a file in place, on a disk or in an object store."""
    content = path.read_bytes()
    if how == "flip":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif how == "cut":
        path.write_bytes(content[:-1])
    else:
        path.unlink()


def lines(store):
    """``{path in the store: what is wrong}`` of everything."""
    found = checked(conditions(store))
    root = str(store.root)
    return {str(path).removeprefix(root).strip("/"): what for each in found for path, what in each.lines()}


def name_of(artifact, store):
    return str(artifact.path).removeprefix(str(store.root)).strip("/")


# --- the check


def test_what_was_written_is_sound_and_how_much_is_read_is_known_before(store):
    for address in (TEXT, LABELS):
        committed(store, address)
    found = conditions(store)
    assert bytes_to_read(found) == (6, 2 * sum(map(len, FILES.values())))
    seen = []
    assert all(each.sound for each in checked(found, lambda files, size: seen.append((files, size))))
    assert seen == 2 * [(1, len(text)) for text in FILES.values()]


def test_every_damaged_file_is_named_with_what_is_wrong(store):
    artifact, labels = committed(store), committed(store, LABELS)
    for name, how in (("a", "flip"), ("b", "cut"), ("c", "remove")):
        damage(artifact.path / name, how)
    damage(labels.path / MANIFEST, "flip")
    text, of_labels = name_of(artifact, store), name_of(labels, store)
    assert lines(store) == {
        f"{text}/a": OTHER_BYTES,
        f"{text}/b": "torn: size differs, 10 bytes instead of 11",
        f"{text}/c": MISSING,
        f"{of_labels}/{MANIFEST}": "damaged manifest; its spare copy is sound",
    }


@pytest.mark.parametrize(("how", "said"), [("flip", "damaged"), ("cut", "damaged"), ("remove", "missing")])
def test_a_damaged_spare_copy_is_named_and_the_artifact_is_read_all_the_same(store, how, said):
    artifact = committed(store)
    damage(artifact.path / SPARE, how)
    assert store.find(TEXT) == artifact
    assert lines(store) == {f"{name_of(artifact, store)}/{SPARE}": said}
    store.copy_manifest(artifact.path)
    assert lines(store) == {}
    assert described(artifact.path, SPARE) == artifact


def test_of_a_damaged_manifest_the_spare_copy_tells_which_files_there_should_be(store):
    artifact = committed(store)
    damage(artifact.path / MANIFEST, "remove")
    damage(artifact.path / "b", "flip")
    name = name_of(artifact, store)
    expected = {f"{name}/{MANIFEST}": "missing manifest; its spare copy is sound", f"{name}/b": OTHER_BYTES}
    assert lines(store) == expected


def test_without_manifest_and_spare_copy_nothing_is_known_of_the_files(store):
    artifact = committed(store)
    for name in (MANIFEST, SPARE):
        damage(artifact.path / name, "flip")
    name = name_of(artifact, store)
    assert lines(store) == {
        f"{name}/{MANIFEST}": "damaged manifest; its spare copy is no help",
        f"{name}/{SPARE}": "damaged",
    }


def test_a_manifest_in_the_folder_of_another_artifact_is_damage(on_disk):
    artifact, other = committed(on_disk), committed(on_disk, Address("text", {"other": 1}))
    for name in (MANIFEST, SPARE):
        (artifact.path / name).write_bytes((other.path / name).read_bytes())
    assert set(lines(on_disk)) == {f"{name_of(artifact, on_disk)}/{name}" for name in (MANIFEST, SPARE)}


def test_a_spare_copy_of_an_older_manifest_is_no_copy(on_disk):
    artifact = committed(on_disk)
    older = (artifact.path / MANIFEST).read_bytes()
    again = committed(on_disk, a="another first file")
    (again.path / SPARE).write_bytes(older)
    assert lines(on_disk) == {f"{name_of(again, on_disk)}/{SPARE}": "not a copy of the manifest"}


def test_a_manifest_of_the_form_without_a_spare_copy_needs_none(on_disk):
    artifact = committed(on_disk)
    old = {"schema": 1, **content_of(artifact.manifest)}
    (artifact.path / MANIFEST).write_text(json.dumps(old, indent=1))
    (artifact.path / SPARE).unlink()
    assert lines(on_disk) == {}
    damage(artifact.path / "a", "flip")
    assert lines(on_disk) == {f"{name_of(artifact, on_disk)}/a": OTHER_BYTES}


def test_folders_that_are_not_named_as_artifacts_are_not_judged(on_disk):
    committed(on_disk)
    (on_disk.root / "text" / "my notes").mkdir()
    (on_disk.root / "text" / "my notes" / "a").write_text("mine")
    assert lines(on_disk) == {}


def test_an_artifact_that_goes_while_it_is_checked_is_no_damage(store):
    artifact = committed(store)
    there = conditions(store)
    store.remove(artifact.path)
    assert checked(there) == []


def test_what_a_writer_left_is_compared_with_its_receipts(store):
    with store.draft(LABELS, resume=True) as draft:
        for name, text in FILES.items():
            draft.add(name, lambda path, text=text: path.write_text(text))
    damage(draft.partial / "a", "flip")
    damage(draft.partial / "b", "remove")
    damage(draft.partial / ".receipts" / "c.json", "cut")
    (left,) = leftovers(store)
    assert (str(left.folder), left.writer) == (str(draft.partial), None)
    assert left.files == {"a": OTHER_BYTES, "b": MISSING, "c": "its receipt is torn"}


# --- mending


def test_what_is_reopened_and_made_again_to_the_same_bytes_is_the_artifact_that_it_was(store):
    artifact = committed(store, LABELS)
    before = {path.name: path.read_bytes() for path in inside(artifact.path)}
    damage(artifact.path / "b", "flip")
    store.reopen(artifact, ["b"])
    assert [str(each.path) for each in store.reopened()] == [str(artifact.path)]
    store.reopen(artifact, ["b"])
    with store.draft(LABELS, resume=True) as draft:
        draft.add("b", lambda path: path.write_text(FILES["b"]), facts={"seconds": 3})
        draft.commit({"answer": 43}, device_seconds=7)
    assert {path.name: path.read_bytes() for path in inside(artifact.path)} == before
    assert store.reopened() == []


def test_what_is_made_again_with_other_bytes_says_so_in_its_manifest(store):
    artifact = committed(store, LABELS)
    store.reopen(artifact, ["b"])
    with store.draft(LABELS, resume=True) as draft:
        draft.add("b", lambda path: path.write_text("other bytes"))
        again = draft.commit({"answer": 43})
    assert again.files["b"] != artifact.files["b"]
    assert again.files["a"] == artifact.files["a"]
    assert again.facts == {"answer": 43}
    assert lines(store) == {}


def test_a_reopening_that_was_cut_off_before_the_artifact_went_is_gone_on_with(on_disk):
    artifact = committed(on_disk, LABELS)
    kept = {path: path.read_bytes() for path in inside(artifact.path)}
    damage(artifact.path / "b", "remove")
    on_disk.reopen(artifact, ["b"])
    artifact.path.mkdir()
    for path, content in kept.items():
        if path.name != "b":
            path.write_bytes(content)
    inodes = {path.name: path.stat().st_ino for path in inside(on_disk.peek(LABELS).partial)}
    on_disk.reopen(artifact, ["b"])
    assert list(artifact.path.iterdir() if artifact.path.exists() else []) == []
    assert {path.name: path.stat().st_ino for path in inside(on_disk.peek(LABELS).partial)} == inodes
    assert (on_disk.peek(LABELS).partial / FORMER).exists()


def test_what_is_withdrawn_is_no_longer_found_and_loses_nothing(store):
    artifact = committed(store)
    (artifact.path / SPARE).unlink()
    store.withdraw(artifact)
    assert store.find(TEXT) is None
    (condition,) = conditions(store)
    assert (condition.record.manifest, condition.files) == (artifact.manifest, {})
    assert store.restore(artifact.path) == artifact


def test_an_artifact_knows_its_address(store):
    for address in (TEXT, LABELS):
        found = address_of(committed(store, address))
        assert (found, found.directory) == (address, address.directory)


# --- removal, and who is at work


def test_what_is_removed_is_gone_with_all_that_was_in_it(store):
    artifact, labels = committed(store), committed(store, LABELS)
    store.remove(artifact.path)
    assert (store.find(TEXT), store.find(LABELS)) == (None, labels)
    # An object store in memory keeps the names of folders that are empty.
    assert [bytes_below(path) for path in (artifact.path, *(path for path, _ in store.partials()))] == [0] * (
        1 + len(store.partials())
    )


def test_while_a_process_writes_an_artifact_it_is_named_and_nothing_is_removed(on_disk):
    artifact, labels = committed(on_disk), committed(on_disk, LABELS)
    assert on_disk.writing() is None
    (lock,) = (on_disk.root / "locks").glob("text-*")
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert f"process {process.pid} on " in on_disk.writing()
        with pytest.raises(Busy, match=f"process {process.pid} "):
            on_disk.remove(artifact.path)
        on_disk.discard_lock(lock)
        assert lock.exists()
        on_disk.remove(labels.path)
        process.stdin.close()
        process.wait()
    assert on_disk.find(TEXT) == artifact
    assert on_disk.writing() is None


def test_a_lock_under_which_nothing_is_any_more_is_idle_and_can_go(on_disk):
    artifact, labels = committed(on_disk), committed(on_disk, LABELS)
    assert on_disk.idle_locks() == []
    on_disk.remove(artifact.path)
    (idle,) = on_disk.idle_locks()
    assert idle.name.startswith("text-")
    on_disk.discard_lock(idle)
    assert on_disk.idle_locks() == []
    with on_disk.locked(artifact.path):
        assert on_disk.writing() is not None
    assert on_disk.find(LABELS) == labels


def test_a_newer_artifact_is_not_judged(on_disk):
    artifact = committed(on_disk)
    from ckd.storage.manifest import _digest, _text

    newer = {"schema": 9, "files": "something else"}
    (artifact.path / MANIFEST).write_text(_text({**newer, "digest": _digest(newer)}))
    with pytest.raises(UserError, match="has manifest schema 9"):
        conditions(on_disk)
