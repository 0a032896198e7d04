"""A store in an object store: the put of the manifest is the commit, a lease is the lock."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from ckd.storage import lease
from ckd.storage.cache import cache_folder
from ckd.storage.disk import Disk, through
from ckd.storage.draft import RECEIPTS
from ckd.storage.errors import Busy, DamagedArtifact, UserError
from ckd.storage.keys import Address
from ckd.storage.location import inside, read
from ckd.storage.manifest import MANIFEST, SPARE
from ckd.storage.store import Store

TEXT = Address("text", {"of": "items"})
LABELS = Address("labels", {"k": 1}, (("teacher", "uni"), ("domain", "office")))
FILES = {"part-00000.parquet": "first file", "part-00001.parquet": "second file"}


def filled(text):
    return lambda path: path.write_text(text, encoding="utf-8")


def committed(store, address=LABELS):
    with store.draft(address, resume=True) as draft:
        for name, text in FILES.items():
            draft.add(name, filled(text), rows=len(text))
        return draft.commit({"answer": 42})


def objects(store):
    found = store.root.fs.find(store.root.path)
    return sorted(path.removeprefix(store.root.path).lstrip("/") for path in found)


class Recorder(Disk):
    """Notes what is put, copied and deleted, in order."""

    def __init__(self):
        self.calls = []

    def put(self, source, destination):
        self.calls.append(("put", destination.name))
        super().put(source, destination)

    def copy(self, source, destination):
        self.calls.append(("copy", destination.name))
        super().copy(source, destination)

    def delete(self, path):
        self.calls.append(("delete", path.name))
        super().delete(path)


class Stopped(Exception):
    pass


class StopsAt(Recorder):
    """Stops for good when one call is reached."""

    def __init__(self, call):
        super().__init__()
        self.call = call

    def copy(self, source, destination):
        if ("copy", destination.name) == self.call:
            raise Stopped
        super().copy(source, destination)


def test_what_is_committed_is_found_and_read_by_another_process(store, url):
    assert store.find(LABELS) is None
    made = committed(store)
    found = Store(url).find(LABELS)
    assert found == made
    assert (found.facts, [*found.files]) == ({"answer": 42}, [*FILES])
    assert {name: found.verified(name).read_text() for name in found.files} == FILES
    assert Store(url).all("labels") == [found]


def test_nothing_is_left_but_the_files_and_the_manifest(store):
    committed(store)
    folder = LABELS.directory.as_posix()
    assert objects(store) == sorted(f"{folder}/{name}" for name in (*FILES, MANIFEST, SPARE))


def test_the_manifest_appears_last_and_goes_first(store):
    committed(store)
    artifact = store.find(LABELS)
    with through(Recorder()) as disk:
        store.reopen(artifact, [])
        committed(store)
    copies = [name for what, name in disk.calls if what == "copy"]
    assert copies[-1] == MANIFEST
    assert next(name for what, name in disk.calls if what == "delete" and name in (*FILES, MANIFEST, SPARE)) == MANIFEST


@pytest.mark.parametrize("name", [*FILES, SPARE, MANIFEST])
def test_what_stops_before_the_manifest_leaves_nothing_for_a_reader_and_is_gone_on_with(store, name):
    with through(StopsAt(("copy", name))), pytest.raises(Stopped):
        committed(store)
    assert store.find(LABELS) is None
    assert store.all("labels") == []
    with store.draft(LABELS, resume=True) as draft:
        assert {name: draft.receipt(name).rows for name in FILES} == {name: len(text) for name, text in FILES.items()}
        assert draft.commit().verify()
    assert [partial for partial, _ in store.partials()] == []


def test_a_shard_with_other_bytes_than_its_receipt_is_not_gone_on_with(store):
    with store.draft(LABELS, resume=True) as draft:
        for name, text in FILES.items():
            draft.add(name, filled(text))
        (draft.partial / "part-00001.parquet").write_text("second fold")
    with store.draft(LABELS, resume=True) as draft:
        assert draft.receipt("part-00000.parquet") is not None
        assert draft.receipt("part-00001.parquet") is None


def test_a_draft_that_is_not_resumed_starts_empty(store):
    with pytest.raises(Stopped), store.draft(TEXT) as draft:
        draft.add("a", filled("a"))
        raise Stopped
    assert objects(store) == []


def test_other_bytes_are_noticed_when_they_are_fetched(store):
    artifact = committed(store)
    (artifact.path / "part-00001.parquet").write_text("second fold")
    assert [name for name in FILES if not artifact.sound(name)] == ["part-00001.parquet"]
    with pytest.raises(DamagedArtifact, match=r"part-00001\.parquet is damaged"):
        store.find(LABELS).verified("part-00001.parquet")
    assert artifact.verified("part-00000.parquet").read_text() == "first file"


def test_a_file_that_is_gone_or_torn_makes_the_artifact_none(store):
    artifact = committed(store)
    (artifact.path / "part-00001.parquet").write_text("second")
    assert store.find(LABELS) is None
    (artifact.path / "part-00001.parquet").unlink()
    assert store.find(LABELS) is None
    assert store.damaged("labels") == [artifact.path]


def test_a_damaged_manifest_is_restored_from_its_spare_copy(store):
    artifact = committed(store)
    (artifact.path / MANIFEST).write_text("{")
    assert store.find(LABELS) is None
    assert store.restore(artifact.path) == artifact
    assert store.find(LABELS) == artifact


def test_a_reopened_artifact_lacks_only_what_is_damaged(store):
    artifact = committed(store)
    store.reopen(artifact, ["part-00001.parquet"])
    assert store.find(LABELS) is None
    with store.draft(LABELS, resume=True) as draft:
        assert draft.receipt("part-00000.parquet") == artifact.files["part-00000.parquet"]
        assert draft.receipt("part-00001.parquet") is None
        draft.add("part-00001.parquet", filled("second file"), rows=11)
        assert draft.commit().files == artifact.files


def test_a_copy_that_rotted_is_fetched_anew(store):
    artifact = committed(store)
    copy = artifact.verified("part-00000.parquet")
    assert copy.is_relative_to(cache_folder())
    copy.write_text("wurst file")
    assert artifact.verified("part-00000.parquet").read_text() == "first file"


def test_one_writer_at_a_time_and_the_other_is_told_who_it_is(store):
    with store.draft(LABELS, resume=True) as draft:
        draft.add("part-00000.parquet", filled("first file"))
        assert store.writer(LABELS) == f"process {os.getpid()} on {socket.gethostname()}"
        with pytest.raises(Busy, match=f"being written by process {os.getpid()} on"), store.draft(LABELS):
            pass
    assert store.writer(LABELS) is None
    committed(store)


def leave_lease(store, **changed):
    lock = store.root / "locks" / f"{'-'.join(LABELS.directory.parts)}.lock"
    record = {"pid": 1, "host": "elsewhere", "nonce": "theirs", "renewed": time.time(), **changed}
    lock.fs.pipe_file(lock.path, json.dumps(record).encode())
    return lock


def test_a_lease_of_another_host_holds_until_it_expires(store):
    leave_lease(store)
    with pytest.raises(Busy, match="process 1 on elsewhere"):
        committed(store)
    leave_lease(store, renewed=time.time() - lease.EXPIRY)
    committed(store)


def test_a_lease_of_a_dead_process_of_this_host_holds_nobody_up(store):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    here = {"pid": int(dead.stdout), "host": socket.gethostname()}
    leave_lease(store, **here, space="of another container with this host's name")
    with pytest.raises(Busy, match=f"being written by process {here['pid']} on"):
        committed(store)
    leave_lease(store, **here, space=lease._pid_space())
    committed(store)


@pytest.mark.parametrize("resume", [True, False])
def test_who_was_stopped_until_its_lease_was_anothers_changes_nothing(store, resume):
    line = r"was taken over by process 1 on elsewhere, .*; run the same command again$"
    with pytest.raises(Busy, match=line), store.draft(LABELS, resume) as draft:
        for name, text in FILES.items():
            draft.add(name, filled(text), rows=len(text))
        before = objects(store)
        lock = leave_lease(store)
        draft.commit()
    assert (objects(store), json.loads(lock.read_text())["nonce"]) == (before, "theirs")
    leave_lease(store, renewed=0)
    assert [*committed(store).files] == [*FILES]


def test_a_file_that_another_writer_took_away_is_missed(store):
    line = r"part-00000\.parquet is damaged; run the same command again"
    with pytest.raises(DamagedArtifact, match=line), store.draft(LABELS, resume=True) as draft:
        for name, text in FILES.items():
            draft.add(name, filled(text))
        (draft.partial / RECEIPTS / "part-00000.parquet.json").unlink()
        draft.commit()
    assert store.find(LABELS) is None


class SignsBadly(Disk):
    """Fails to sign, in ways of its own, and then does it."""

    def __init__(self, *errors):
        self.errors = list(errors)

    def sign(self, path, text, new):
        if self.errors and new == (self.errors[0] is FileExistsError):
            raise self.errors.pop(0)
        super().sign(path, text, new)


def test_a_lease_that_ended_while_it_was_asked_for_is_to_be_had(store):
    with through(SignsBadly(FileExistsError)) as disk, store.draft(LABELS):
        (lock,) = inside(store.root / "locks")
        assert (disk.errors, json.loads(read(lock))["pid"]) == ([], os.getpid())


def test_no_error_of_a_renewal_ends_the_renewing(store, monkeypatch):
    monkeypatch.setattr(lease, "RENEWAL", 0.01)
    with through(SignsBadly(RuntimeError, OSError)) as disk, store.draft(LABELS):
        (lock,) = inside(store.root / "locks")
        first = json.loads(read(lock))
        while json.loads(read(lock)) == first:
            time.sleep(0.01)
        assert not disk.errors


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_lease_that_says_nothing_holds_nobody_up(store, text):
    lock = leave_lease(store)
    lock.write_text(text)
    committed(store)


def test_a_lease_is_renewed_while_it_is_held_and_gone_afterwards(store, monkeypatch):
    monkeypatch.setattr(lease, "RENEWAL", 0.01)
    with store.draft(LABELS):
        (lock,) = inside(store.root / "locks")
        first = json.loads(read(lock))
        while json.loads(read(lock)) == first:
            time.sleep(0.01)
    assert not lock.exists()


def test_the_winner_of_an_expired_lease_is_the_last_that_took_it(store, monkeypatch):
    lock = leave_lease(store, renewed=0)
    # While this process waits to see who was last, another one takes the lease over, too.
    monkeypatch.setattr(lease.time, "sleep", lambda _: leave_lease(store, host="faster", nonce="faster"))
    with pytest.raises(Busy, match="process 1 on faster"):
        committed(store)
    assert json.loads(lock.read_text())["nonce"] == "faster"


def test_removing_needs_the_lease_and_takes_all(store):
    artifact = committed(store)
    leave_lease(store)
    with pytest.raises(Busy):
        store.remove(artifact.path)
    leave_lease(store, renewed=0)
    store.remove(artifact.path)
    assert objects(store) == []


def test_what_a_writer_left_is_listed(store):
    with pytest.raises(Stopped), store.draft(LABELS, resume=True) as draft:
        draft.add("part-00000.parquet", filled("first file"))
        raise Stopped
    ((partial, writer),) = store.partials()
    assert (partial.name, writer) == (f".key={LABELS.short_key}.partial", None)
    assert [path.name for path in inside(partial / RECEIPTS)] == ["part-00000.parquet.json"]


def test_a_bucket_that_is_not_there_is_one_line(s3):
    with pytest.raises(UserError) as caught:
        Store("s3://no-such-bucket/store")
    assert str(caught.value) == (
        "store s3://no-such-bucket/store: there is no bucket 'no-such-bucket'; make it first, or name another store"
    )


def test_a_scheme_that_nobody_knows_is_one_line():
    with pytest.raises(UserError, match=r"store abc://x: abc:// cannot be opened \(.*\); install the fsspec package"):
        Store("abc://x")


def test_a_file_url_is_a_folder(tmp_path):
    assert Store(f"file://{tmp_path}/store").root == tmp_path / "store"
