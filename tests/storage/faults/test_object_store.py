"""Every call that the writing of labels makes of an object store fails once; fsspec's memory stands for the store."""

from itertools import count

import fsspec
import pytest
import torch
from failing import FailingDisk

from ckd.stages.precompute.label import label_corpus
from ckd.stages.precompute.settings import LabelSettings
from ckd.stages.teachers.contract import Opening
from ckd.stages.teachers.unisrec import Settings, open_teacher
from ckd.storage.disk import through
from ckd.storage.errors import UserError
from ckd.storage.keys import Address
from ckd.storage.store import Store

pytestmark = pytest.mark.faults

HOW = ("no space", "I/O error", "I/O error, done", "disk gone", "Ctrl-C")
STRIDE = 2
ADDRESS = Address("labels", {"of": "a test"}, (("teacher", "uni"), ("domain", "tiny")))
LABELS = LabelSettings(top_k=5, shard_rows=220, splits=("valid", "test"), precision="float16")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher(world):
    settings = Settings(checkpoint=str(world.teacher))
    files = settings.files("tiny", "teachers.uni")
    return open_teacher(Opening(settings, files, world.corpus, world.text, CPU, False, None, LABELS.splits))


@pytest.fixture
def precompute(world, teacher, tmp_path, monkeypatch):
    """A function that makes the labels in a store and returns the bytes of their files."""
    monkeypatch.setenv("CKD_CACHE", str(tmp_path / "copies"))

    def made(store):
        artifact = label_corpus(store, ADDRESS, world.corpus, LABELS, lambda: teacher, CPU)
        artifact.verify()
        return {name: (artifact.path / name).read_bytes() for name in artifact.files}

    return made


def let_its_process_end(store):
    """A lease that could not be given back is that of a process which has ended since."""
    for lease in store.root.joinpath("locks").glob("*"):
        lease.unlink()


@pytest.mark.parametrize("how", HOW)
def test_whatever_call_fails_nothing_is_half_and_a_rerun_ends_with_the_same_bytes(how, long, precompute, counted):
    whole = precompute(Store(f"memory://whole-{HOW.index(how)}"))
    assert len(whole) > 3
    failures, stride = 0, 1 if long else STRIDE
    for n in count(1 if long else 1 + HOW.index(how), stride):
        store = Store(f"memory://{how.replace(' ', '-')}-{n}")
        disk = FailingDisk(n, how)
        try:
            with through(disk):
                precompute(store)
            ended = True
        except (OSError, KeyboardInterrupt, UserError):
            ended = False
        if not disk.failed:
            break
        failures += 1
        for artifact in store.all("labels"):
            artifact.verify()
        let_its_process_end(store)
        assert precompute(store) == whole, n
        assert [found.key for found in store.all("labels")] == [ADDRESS.key]
        store.root.fs.rm(store.root.path, recursive=True)
    assert ended and failures >= 45 // stride
    fsspec.filesystem("memory").store.clear()
    counted(f"faults: {how}: {failures} of {disk.calls} calls of an object store failed, one in each run; all survived")
