"""One writer per artifact: real processes that hold, wait, and die."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

from ckd.storage.errors import Busy
from ckd.storage.keys import Address
from ckd.storage.lock import exclusive
from ckd.storage.store import Store

ADDRESS = Address("labels", {"a": 1}, (("teacher", "uni"), ("domain", "office")))
HOLD = (
    "import sys; from pathlib import Path; from ckd.storage.lock import exclusive\n"
    "with exclusive(Path(sys.argv[1]), 'it'):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


@contextmanager
def holder(path):
    """A process that holds the lock until it is killed or its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_second_process_is_told_who_holds_the_lock(tmp_path):
    path = tmp_path / "locks" / "a.lock"
    with holder(path) as process, pytest.raises(Busy) as caught, exclusive(path, "labels artifact abc"):
        pytest.fail("both hold it")
    assert str(caught.value) == (
        f"labels artifact abc is being written by process {process.pid} on {socket.gethostname()}; "
        "wait for it to end or stop it"
    )


def test_a_lock_dies_with_its_killed_process(tmp_path):
    path = tmp_path / "a.lock"
    with holder(path) as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert path.exists()
        with exclusive(path, "it"):
            assert str(os.getpid()) in path.read_text()


def test_a_lock_is_free_after_its_holder_ends_or_fails(tmp_path):
    path = tmp_path / "a.lock"
    with holder(path) as process:
        process.stdin.close()
        assert process.wait() == 0
    with pytest.raises(RuntimeError), exclusive(path, "it"):
        raise RuntimeError("in the body")
    with exclusive(path, "it"):
        pass


def test_a_holder_that_has_not_signed_yet_is_another_process(tmp_path):
    path = tmp_path / "a.lock"
    with holder(path):
        path.write_text("")
        with pytest.raises(Busy, match="is being written by another process; wait"), exclusive(path, "it"):
            pytest.fail("both hold it")


def test_a_draft_is_refused_while_another_process_writes_the_same_artifact_and_harms_nothing(tmp_path):
    store = Store(tmp_path / "store")
    with store.draft(ADDRESS, resume=True) as draft:
        draft.add("a", lambda path: path.write_text("left by an interrupted writer"))
    (lock,) = (store.root / "locks").iterdir()
    with holder(lock) as process:
        said = f"labels artifact {ADDRESS.short_key} .* process {process.pid} "
        with pytest.raises(Busy, match=said), store.draft(ADDRESS):
            pytest.fail("both write it")
        assert (draft.partial / "a").exists()
        with store.draft(Address("labels", {"a": 2}, ADDRESS.partitions)) as other:
            assert other.partial != draft.partial
    with store.draft(ADDRESS, resume=True) as draft:
        assert draft.receipt("a") is not None


def test_readers_do_not_ask_for_the_lock(tmp_path):
    store = Store(tmp_path / "store")
    with store.draft(ADDRESS) as draft:
        draft.add("a", lambda path: path.write_text("x"))
        artifact = draft.commit()
    (lock,) = (store.root / "locks").iterdir()
    with holder(lock):
        found = store.find(ADDRESS)
        assert found == artifact
        found.verify()
