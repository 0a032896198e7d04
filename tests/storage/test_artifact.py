"""Artifacts: what exists for a reader, what an interrupted writer leaves, what a damaged file is answered with."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckd.storage.artifact import load_artifact
from ckd.storage.draft import RECEIPTS, receipts_in
from ckd.storage.errors import DamagedArtifact, UserError
from ckd.storage.files import sha256_file, write_text_durably
from ckd.storage.keys import Address, canonical_json
from ckd.storage.manifest import MANIFEST, MANIFEST_SCHEMA, SPARE
from ckd.storage.progress import expect_shards, shards_done
from ckd.storage.store import Store

ADDRESS = Address("text", {"corpus": "ä", "format": 1})
LABELS = Address("labels", {"a": 1}, (("teacher", "uni"), ("domain", "office")))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def artifact(store):
    return committed(store)


def text_file(text):
    return lambda path: path.write_text(text, encoding="utf-8")


def committed(store, address=ADDRESS, **files):
    files = files or {"a": "first file", "b": "second file"}
    with store.draft(address) as draft:
        for name, text in files.items():
            draft.add(name, text_file(text), rows=len(text), facts={"of": name})
        return draft.commit({"answer": 42}, device_seconds=1.5)


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- commit


def test_a_committed_artifact_is_there_at_once_with_all_that_was_said_of_it(store):
    assert store.find(ADDRESS) is None
    made = committed(store)
    found = store.find(ADDRESS)
    assert found == made
    assert found.path == store.root / ADDRESS.directory
    assert (found.key, found.inputs, found.facts) == (ADDRESS.key, dict(ADDRESS.inputs), {"answer": 42})
    receipt = found.files["a"]
    assert (receipt.bytes, receipt.rows, receipt.facts) == (len("first file"), len("first file"), {"of": "a"})
    assert receipt.sha256 == sha256_file(found.path / "a")
    assert found.manifest["device_seconds"] == 1.5
    assert found.manifest["schema"] == MANIFEST_SCHEMA
    found.verify()


def test_an_artifact_is_found_by_its_whole_key_alone(store):
    made = committed(store)
    assert store.with_key("text", made.key) == made
    assert store.with_key("text", made.key[:-1] + ("1" if made.key[-1] == "0" else "0")) is None
    assert store.with_key("corpus", made.key) is None


def test_nothing_but_the_files_and_the_manifest_is_left_after_a_commit(store):
    with store.draft(ADDRESS) as draft:
        draft.add("a", text_file("a"))
        (draft.partial / "stray").write_text("left by who knows whom")
        expect_shards(draft, 1)
        draft.commit()
    assert tree(store.root / "text") == [
        ADDRESS.short_key,
        *(f"{ADDRESS.short_key}/{name}" for name in ("a", MANIFEST, SPARE)),
    ]


def test_before_the_commit_no_reader_sees_an_artifact(store):
    with store.draft(ADDRESS) as draft:
        draft.add("a", text_file("a"))
        assert store.find(ADDRESS) is None
        assert store.all("text") == []
        draft.commit()
        assert store.find(ADDRESS) is not None


def test_all_lists_the_committed_artifacts_of_one_kind(store):
    labels, text = committed(store, LABELS), committed(store)
    with store.draft(Address("text", {"other": 1})) as draft:
        draft.add("a", text_file("never committed"))
    assert store.all("labels") == [labels]
    assert store.all("text") == [text]
    assert store.all("runs") == []


def test_an_artifact_under_another_key_of_the_same_short_form_is_not_taken_for_this_one(store):
    """The path holds 16 digits of the key; the manifest holds all of them, and they decide."""
    path = committed(store).path
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["key"] = manifest["key"][:-1] + ("0" if manifest["key"][-1] != "0" else "1")
    (path / MANIFEST).write_text(json.dumps(manifest))
    assert store.find(ADDRESS) is None


# --- what does not exist for a reader


def test_a_directory_without_a_manifest_does_not_exist(store):
    (committed(store).path / MANIFEST).unlink()
    assert store.find(ADDRESS) is None
    assert store.all("text") == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_directory_with_a_torn_manifest_does_not_exist(artifact, store, share):
    whole = json.dumps(artifact.manifest, indent=1).encode()
    (artifact.path / MANIFEST).write_bytes(whole[: int(share * len(whole))])
    assert store.find(ADDRESS) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_manifest_with_a_wrong_byte_is_no_reason_to_fall_over(artifact, store, place, byte):
    content = bytearray(json.dumps(artifact.manifest, indent=1).encode())
    content[place % len(content)] = byte
    (artifact.path / MANIFEST).write_bytes(content)
    try:
        found = store.find(ADDRESS)
    except UserError as error:
        assert "schema" in str(error)
    else:
        assert found is None or (found.key, list(found.files)) == (ADDRESS.key, ["a", "b"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(place=st.integers(0, 100_000), bit=st.integers(0, 7))
def test_a_manifest_with_one_flipped_bit_is_none_and_is_restored_from_its_spare_copy(artifact, store, place, bit):
    whole = (artifact.path / MANIFEST).read_bytes()
    content = bytearray(whole)
    content[place % len(content)] ^= 1 << bit
    (artifact.path / MANIFEST).write_bytes(content)
    assert store.find(ADDRESS) is None
    assert store.damaged("text") == [artifact.path]
    assert store.restore(artifact.path) == store.find(ADDRESS) == artifact
    assert (artifact.path / MANIFEST).read_bytes() == whole


def test_a_manifest_whose_spare_copy_is_damaged_too_is_not_restored(artifact, store):
    for name in (MANIFEST, SPARE):
        (artifact.path / name).write_text("{}")
    assert store.restore(artifact.path) is None
    assert store.find(ADDRESS) is None


@pytest.mark.parametrize("missing", ["kind", "key", "inputs", "files", "facts", "schema"])
def test_a_directory_whose_manifest_lacks_an_entry_does_not_exist(store, missing):
    path = committed(store).path / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest[missing]
    path.write_text(json.dumps(manifest))
    assert store.find(ADDRESS) is None
    assert store.all("text") == []


@pytest.mark.parametrize(
    "content", ["[]", "3", "null", '"schema"', '{"schema": 1}', '{"schema": 1, "files": []}', "\x80"]
)
def test_a_directory_with_another_json_for_a_manifest_does_not_exist(store, content):
    path = committed(store).path / MANIFEST
    path.write_text(content, encoding="latin-1")
    assert store.find(ADDRESS) is None


def test_a_directory_that_lacks_a_file_does_not_exist(store):
    (committed(store).path / "b").unlink()
    assert store.find(ADDRESS) is None


@pytest.mark.parametrize("text", ["", "second fil", "second file and more"])
def test_a_directory_with_a_file_of_another_size_does_not_exist(store, text):
    (committed(store).path / "b").write_text(text)
    assert store.find(ADDRESS) is None


def test_what_does_not_exist_is_replaced_by_the_next_commit(store):
    path = committed(store).path
    (path / "b").unlink()
    (path / "unknown").write_text("x")
    again = committed(store)
    assert store.find(ADDRESS) == again
    assert not (path / "unknown").exists()


def test_a_newer_manifest_is_refused_with_one_line_that_says_what_to_do(store):
    path = committed(store).path / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["digest"]
    manifest |= {"schema": MANIFEST_SCHEMA + 1, "files": "something else in the future"}
    manifest["digest"] = hashlib.sha256(canonical_json(manifest).encode()).hexdigest()
    path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        store.find(ADDRESS)
    assert str(caught.value) == (
        f"{path} has manifest schema {MANIFEST_SCHEMA + 1}, this ckd reads schema {MANIFEST_SCHEMA}: "
        "use the version of ckd that wrote it, or another store"
    )
    assert path.exists()


def test_a_manifest_is_read_as_utf_8_whatever_the_locale(store):
    path = committed(store, Address("text", {"column": "größe"})).path
    code = (
        "import sys; from pathlib import Path; from ckd.storage.artifact import load_artifact; "
        "found = load_artifact(Path(sys.argv[1])); print(ascii(found.inputs['column']))"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, path], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == ascii("größe") + "\n", done.stderr


# --- damage


def test_verify_finds_one_flipped_bit_and_names_the_file_and_the_mend(store):
    artifact = committed(store)
    content = bytearray((artifact.path / "b").read_bytes())
    content[3] ^= 1
    (artifact.path / "b").write_bytes(content)
    found = store.find(ADDRESS)
    assert found.verified("a") == artifact.path / "a"
    with pytest.raises(DamagedArtifact) as caught:
        found.verify()
    assert str(caught.value) == (
        f"{artifact.path / 'b'} is damaged: its bytes are not those that were written; "
        f"run `ckd verify --repair`, or remove the folder {artifact.path} and run `ckd prepare` to make it again"
    )


def test_the_mend_that_damage_is_answered_with_works(store):
    artifact = committed(store)
    (artifact.path / "b").write_text("second fold")
    shutil.rmtree(artifact.path)
    assert store.find(ADDRESS) is None
    committed(store).verify()


def test_a_reopened_artifact_lacks_the_damaged_files_and_is_whole_again_when_they_are_written(store):
    artifact = committed(store, LABELS)
    whole = {name: (artifact.path / name).read_bytes() for name in artifact.files}
    (artifact.path / "b").write_text("second fold")
    assert [name for name in artifact.files if not artifact.sound(name)] == ["b"]
    store.reopen(artifact, ["b"])
    assert store.find(LABELS) is None
    with store.draft(LABELS, resume=True) as draft:
        assert (draft.receipt("a"), draft.receipt("b")) == (artifact.files["a"], None)
        draft.add("b", text_file("second file"), rows=11, facts={"of": "b"})
        again = draft.commit(artifact.facts)
    assert again.files == artifact.files
    assert {name: (again.path / name).read_bytes() for name in again.files} == whole
    again.verify()


# --- resume


def test_a_resumed_draft_trusts_the_files_whose_digest_is_that_of_their_receipt(store):
    with store.draft(ADDRESS, resume=True) as draft:
        for name in ("whole", "flipped", "short", "gone", "unreceipted"):
            draft.add(name, text_file(f"content of {name}"), rows=3)
    (draft.partial / "flipped").write_text("content of flopped")
    (draft.partial / "short").write_text("content")
    (draft.partial / "gone").unlink()
    (draft.partial / ".receipts" / "unreceipted.json").unlink()
    with store.draft(ADDRESS, resume=True) as draft:
        trusted = [name for name in ("whole", "flipped", "short", "gone", "unreceipted", "new") if draft.receipt(name)]
        assert trusted == ["whole"]
        assert draft.receipt("whole").rows == 3
        assert draft.recorded("flipped") is not None  # the cheap look compares sizes only
        assert draft.recorded("short") is None
        assert draft.recorded("gone") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"bytes": 1}', '{"bytes": 1, "sha256": "x", "more": 1}'])
def test_a_torn_receipt_is_no_receipt(store, text):
    with store.draft(ADDRESS, resume=True) as draft:
        draft.add("a", text_file("a"))
    (draft.partial / ".receipts" / "a.json").write_text(text)
    with store.draft(ADDRESS, resume=True) as draft:
        assert draft.receipt("a") is None


def test_what_a_writer_that_can_not_resume_leaves_behind_is_removed(store):
    with pytest.raises(OSError, match="no space left"), store.draft(ADDRESS) as draft:
        draft.add("a", text_file("half of it"))
        raise OSError(errno.ENOSPC, "no space left")
    assert tree(store.root / "text") == []


def test_a_writer_that_can_resume_leaves_its_files_but_no_empty_folder(store):
    with store.draft(ADDRESS, resume=True):
        pass
    assert tree(store.root / "text") == []
    with pytest.raises(OSError, match="no space left"), store.draft(ADDRESS, resume=True) as draft:
        draft.add("a", text_file("the first file"))
        raise OSError(errno.ENOSPC, "no space left")
    with store.draft(ADDRESS, resume=True) as draft:
        assert draft.receipt("a") is not None


def test_without_resume_what_was_left_is_removed_first(store):
    with store.draft(ADDRESS, resume=True) as draft:
        draft.add("a", text_file("old"))
    with store.draft(ADDRESS) as draft:
        assert draft.receipt("a") is None
        assert not (draft.partial / "a").exists()


def test_a_file_that_is_added_again_loses_its_receipt_before_it_is_touched(store):
    with store.draft(ADDRESS) as draft:
        draft.add("a", text_file("old"))

        def fail(path):
            path.write_text("half of the n")
            raise OSError(errno.ENOSPC, "no space left")

        with pytest.raises(OSError, match="no space left"):
            draft.add("a", fail)
        assert draft.receipt("a") is None
        assert (draft.partial / "a").read_text() == "old"
        assert [name for name in tree(draft.partial) if "writing" in name] == []


def test_files_of_an_earlier_writer_under_other_names_are_not_committed(store):
    with store.draft(ADDRESS, resume=True) as draft:
        for name in ("part-0.parquet", "part-1.parquet", "part-2.parquet"):
            draft.add(name, text_file(name))
    with store.draft(ADDRESS, resume=True) as draft:
        draft.keep_only(["part-0.parquet"])
        draft.add("part-1.parquet", text_file("new"))
        artifact = draft.commit()
    assert list(artifact.files) == ["part-0.parquet", "part-1.parquet"]
    assert tree(artifact.path) == [MANIFEST, SPARE, "part-0.parquet", "part-1.parquet"]
    artifact.verify()


def test_half_a_receipt_of_a_killed_writer_is_none_and_is_gone_afterwards(store):
    with store.draft(ADDRESS, resume=True) as draft:
        draft.add("part-0.parquet", text_file("whole"))
        (draft.partial / RECEIPTS / ".part-1.parquet.json.writing").write_text('{"rec')
    assert [*receipts_in(draft.partial)] == ["part-0.parquet"]
    with store.draft(ADDRESS, resume=True) as draft:
        draft.keep_only(["part-0.parquet"])
        artifact = draft.commit()
    assert tree(artifact.path) == [MANIFEST, SPARE, "part-0.parquet"]


def test_the_progress_of_an_interrupted_writer_can_be_seen_without_its_lock(store):
    assert store.peek(ADDRESS) is None
    with store.draft(ADDRESS, resume=True) as draft:
        assert shards_done(store.peek(ADDRESS)) is None
        expect_shards(draft, 3)
        draft.add("part-00000.parquet", text_file("a"))
        draft.add("part-00001.parquet", text_file("b"))
        draft.add("vectors.parquet", text_file("c"))
    (draft.partial / "part-00001.parquet").write_text("longer than it was")
    assert shards_done(store.peek(ADDRESS)) == (1, 3)


# --- durable files


def test_a_durable_write_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "file"
    write_text_durably(path, "old")
    inode = path.stat().st_ino
    write_text_durably(path, "newä")
    assert path.read_bytes() == "newä".encode()
    assert path.stat().st_ino != inode
    assert tree(tmp_path) == ["file"]


def test_load_artifact_of_a_path_that_is_not_there_is_none(tmp_path):
    assert load_artifact(tmp_path / "nowhere") is None
