"""Files that were compared with their digests once are not compared again, as long as they are the same."""

import os
import subprocess
import sys

import pytest

from ckd.storage.errors import DamagedArtifact
from ckd.storage.keys import Address
from ckd.storage.store import Store

READ = """
import sys
from pathlib import Path
from ckd.storage.artifact import load_artifact
from ckd.storage.trust import trust

artifact = load_artifact(Path(sys.argv[1]))
trust(eval(sys.argv[2], {"PosixPath": Path}))
print(artifact.verified("data").read_text())
"""


@pytest.fixture
def artifact(tmp_path):
    with Store(tmp_path).draft(Address("corpus", {})) as draft:
        draft.add("data", lambda path: path.write_text("content"))
        return draft.commit()


def read(artifact, signatures):
    command = [sys.executable, "-c", READ, artifact.path, repr(signatures)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_file_that_was_compared_is_not_compared_in_a_process_that_was_told(artifact):
    signatures = artifact.verify()
    path = artifact.path / "data"
    times = path.stat()
    with path.open("r+") as stream:
        stream.write("CONTENT")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert read(artifact, signatures).stdout == "CONTENT\n"
    assert "DamagedArtifact" in read(artifact, {}).stderr


def test_a_file_that_changed_since_is_compared(artifact):
    signatures = artifact.verify()
    (artifact.path / "data").write_text("CONTENT")
    assert "DamagedArtifact" in read(artifact, signatures).stderr


def test_verifying_trusts_nothing_in_the_process_itself(artifact):
    artifact.verify()
    path = artifact.path / "data"
    times = path.stat()
    with path.open("r+") as stream:
        stream.write("CONTENT")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DamagedArtifact):
        artifact.verify()
