"""Whatever changes the store goes through the one seam, `ckd.storage.disk`: what goes past it no fault could reach."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CHANGES = {
    *("write_text", "write_bytes", "touch", "mkdir", "makedirs", "rmdir", "removedirs", "unlink", "rename", "renames"),
    *("rmtree", "copy2", "copyfile", "copytree", "move", "hardlink_to", "symlink_to", "link_to", "symlink"),
    *("fsync", "fdatasync", "truncate", "ftruncate", "mkstemp", "mkdtemp", "NamedTemporaryFile"),
    *("put_file", "cp_file", "rm_file", "pipe_file", "get_file", "put", "cp", "rm", "mv", "pipe"),
    *("ParquetWriter", "write_table", "write_dataset", "savez", "save_file"),
}
"""Names of what changes files, here or in an object store."""
FILLS = {
    ("cache.py", "local_copy"),
    ("files.py", "_write_all"),
    ("lock.py", "_locked"),
    ("lock.py", "discard"),
    ("lock.py", "_sign"),
    ("parquet.py", "write_table"),
    ("parquet.py", "write_batches"),
    ("runs.py", "_write_text"),
}
"""File and function that are called by the seam, or that open what has been made through it."""
OURS = {"disk", "files", "parquet"}
"""`disk().rename` is the seam; `write_table` of ours is called in fills."""

WATCHED = """
import json, sys
from pathlib import Path
from ckd.pipeline.cli import main
from ckd.storage.disk import Disk, through

class Seam(Disk):
    inside = 0

def passing(name):
    def call(self, *arguments, **named):
        Seam.inside += 1
        try:
            return getattr(Disk, name)(self, *arguments, **named)
        finally:
            Seam.inside -= 1
    return call

for each in [name for name in vars(Disk) if not name.startswith("_")]:
    setattr(Seam, each, passing(each))

STORE = str(Path("disk/store").resolve())
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")
past, through_it = set(), set()

def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        changes = bool(flags & 0o3) and not (mode == "r+" and str(path).endswith(".lock"))
    elif event in CHANGES:
        path, changes = arguments[0], True
    else:
        return
    if changes and str(path).startswith(STORE):
        (through_it if Seam.inside else past).add((event, str(path)))

sys.addaudithook(watch)
with through(Seam()):
    for command in (["precompute"], ["distill", "--set", "distill.epochs=1"]):
        assert main(command) == 0
print(json.dumps([sorted(past), len(through_it)]))
"""


def changing_calls(file: Path) -> Iterator[tuple[str, str, str]]:
    """Yield file, function and call of whatever in a module changes files."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and changes(node):
                yield file.name, function.name, ast.unparse(node)


def changes(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute):
        return False
    name, owner = call.func.attr, ast.unparse(call.func.value).removesuffix("()")
    if owner in OURS:
        return False
    if name == "replace":  # a path's; that of a text takes two arguments
        return len(call.args) == 1 and not call.keywords
    if name == "open":
        modes = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
        return any(set(str(mode)) & set("wax+") for mode in modes)
    return name in CHANGES


def test_the_search_finds_what_changes_files():
    found = {function for _, function, _ in changing_calls(ROOT / "storage" / "disk.py")}
    assert found == {
        "link",
        "sync",
        "rename",
        "make_folder",
        "remove",
        "remove_tree",
        "put",
        "sign",
        "copy",
        "delete",
        "clear",
    }


def test_no_module_of_storage_but_the_seam_changes_files():
    files = [file for file in (ROOT / "storage").rglob("*.py") if file.name != "disk.py"]
    found = [call for file in files for call in changing_calls(file)]
    assert [call for call in found if call[:2] not in FILLS] == []
    assert {call[:2] for call in found} == FILLS, "one that is no more"


@pytest.mark.faults
def test_no_command_changes_the_store_past_the_seam(make_place, tmp_path):
    place = make_place(tmp_path / "place")
    with (place.folder / "pipeline.yaml").open("a") as stream:
        stream.write("students:\n  small: {kind: sasrec, hidden: 8, blocks: 1, max_length: 8}\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", WATCHED]
    done = subprocess.run(command, cwd=place.folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    past, through_it = json.loads(done.stdout.splitlines()[-1])
    assert past == []
    assert through_it > 50
