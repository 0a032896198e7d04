"""The folder of an export appears whole or not at all."""

import json
import stat

import pytest

from ckd.stages.export.folder import folder_aside, read_mark, write_config
from ckd.storage.errors import UserError


def make(out, text="one", force=False):
    with folder_aside(out, force) as aside:
        (aside / "data").write_text(text)
        write_config(aside, {"format": "test"})


def test_a_folder_is_made_with_the_digests_of_its_files(tmp_path):
    out = tmp_path / "new" / "export"
    make(out)
    config = json.loads((out / "config.json").read_text())
    assert config["files"] == {"data": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"}
    assert read_mark(out) == 1
    assert stat.S_IMODE(out.stat().st_mode) == 0o755
    assert [path.name for path in out.parent.iterdir()] == ["export"]


def test_what_is_there_is_kept_unless_forced(tmp_path):
    make(tmp_path / "export")
    with pytest.raises(UserError, match="is there already; name another folder with --out, or replace it with --force"):
        make(tmp_path / "export", "two")
    assert (tmp_path / "export" / "data").read_text() == "one"
    make(tmp_path / "export", "two", force=True)
    assert (tmp_path / "export" / "data").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_force_replaces_nothing_but_exports(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "config.json").write_text('{"of": "another program"}')
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    for name in ("precious", "file", "link"):
        with pytest.raises(UserError, match="is there and is no export of ckd, so it is not replaced"):
            make(tmp_path / name, force=True)
    assert (tmp_path / "precious" / "config.json").exists()


def test_force_loses_nothing_that_somebody_put_beside_an_export(tmp_path):
    make(tmp_path / "export")
    (tmp_path / "export" / "notes.txt").write_text("precious")
    with pytest.raises(
        UserError, match=r"export holds 'notes\.txt', which is no part of the export and would be lost;"
    ):
        make(tmp_path / "export", "two", force=True)
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == ["config.json", "data", "notes.txt"]
    (tmp_path / "export" / "notes.txt").rename(tmp_path / "notes.txt")
    make(tmp_path / "export", "two", force=True)
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty", force=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, UserError])
def test_an_interruption_leaves_what_was_there_before(tmp_path, error):
    make(tmp_path / "old")
    for name in ("old", "new"):
        with pytest.raises(error), folder_aside(tmp_path / name, True) as aside:
            (aside / "data").write_text("half")
            raise error
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old" / "data").read_text() == "one"
