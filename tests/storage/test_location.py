"""What is found below a folder, and what may not be read."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ckd.storage.location import matching

SHUT = """
import ctypes, os, sys
from pathlib import Path
from ckd.storage.location import matching

if os.geteuid() == 0:  # to whom no mode applies
    ctypes.CDLL(None).setfsuid(65534)
root = Path(sys.argv[1])
print([path.name for path in matching(root, "open/*")])
try:
    print([path.name for path in matching(root, "shut/*")])
except PermissionError as error:
    print("denied", Path(error.filename).name)
"""


@pytest.fixture
def tree(tmp_path):
    for name in (
        "runs/b/manifest.json",
        "runs/a/manifest.json",
        "runs/.c.partial/x",
        "labels/teacher=t/domain=d/key=1",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "runs/*",
        "runs/.*.partial",
        "*/*/manifest.json",
        "labels/teacher=*/domain=d/key=*",
        "runs/[a]",
        "no/*",
        "runs/a/manifest.json/*",
    ],
)
def test_it_finds_what_a_glob_finds_in_order(tree, pattern):
    assert matching(tree, pattern) == sorted(tree.glob(pattern), key=str)


@pytest.mark.skipif(sys.platform != "linux", reason="root is made to obey modes as Linux has it")
def test_a_folder_that_may_not_be_read_is_not_taken_for_empty():
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        for part in ("open", "shut"):
            (root / part / "artifact").mkdir(parents=True)
            (root / part).chmod(0o755)
        (root / "shut").chmod(0)
        done = subprocess.run([sys.executable, "-c", SHUT, name], capture_output=True, text=True, check=True)
        (root / "shut").chmod(0o755)
    assert done.stdout.splitlines() == ["['artifact']", "denied shut"]
