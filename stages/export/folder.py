"""The folder of an export: written aside, flushed, and made visible by one rename."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ckd.stages.export.out import usable
from ckd.storage import files
from ckd.storage.disk import disk
from ckd.storage.errors import UserError

CONFIG, ITEMS, USERS, README = "config.json", "items.parquet", "users.parquet", "README.md"
MARK = "ckd_export"
"""Key of ``config.json`` that tells an export of ours from other folders; its value is the version of its layout."""
LAYOUT = 1


@contextmanager
def folder_aside(out: Path, force: bool) -> Iterator[Path]:
    """Give an empty folder to write into, which becomes ``out`` if the body ends well and is removed if not.

    Raises:
        UserError: ``out`` is there already and ``force`` is not given, or it is no export or holds more than that,
            which nothing replaces.
    """
    refuse_existing(out, force)
    with usable(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".writing", dir=out.parent))
    try:
        yield aside
        aside.chmod(0o755)  # what mkdtemp makes is the owner's alone
        for path in aside.iterdir():
            disk().sync(path)
        disk().sync(aside)
        _replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def refuse_existing(out: Path, force: bool) -> None:
    """Refuse a place that is taken.

    Raises:
        UserError: see :func:`folder_aside`.
    """
    with usable(out):
        if not out.exists() and not out.is_symlink():
            return
    if out.is_dir() and not out.is_symlink() and (read_mark(out) or not any(out.iterdir())):
        if not force:
            raise UserError(f"{out} is there already; name another folder with --out, or replace it with --force")
        if foreign := sorted({path.name for path in out.iterdir()} - {CONFIG, *_written(out)}):
            raise UserError(
                f"{out} holds {foreign[0]!r}, which is no part of the export and would be lost; move it away, or name "
                "another folder with --out"
            )
        return
    raise UserError(f"{out} is there and is no export of ckd, so it is not replaced; name another folder with --out")


def read_mark(folder: Path) -> int | None:
    """Return the version of the layout of an export, or None if the folder is none."""
    try:
        return int(_config(folder)[MARK])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _written(folder: Path) -> set[str]:
    """Return the names of the files that an export was written with."""
    return set(_config(folder)["files"]) if any(folder.iterdir()) else set()


def _config(folder: Path) -> Any:
    return json.loads((folder / CONFIG).read_text(encoding="utf-8"))


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.json`` with the digests of the files that are there."""
    digests = {path.name: files.sha256_file(path) for path in sorted(folder.iterdir())}
    text = json.dumps({MARK: LAYOUT, **config, "files": digests}, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def _replace(aside: Path, out: Path) -> None:
    if not out.exists():
        files.move_directory(aside, out, CONFIG)
        return
    old = aside.with_name(aside.name.removesuffix(".writing") + ".replaced")
    out.rename(old)
    try:
        files.move_directory(aside, out, CONFIG)
    except BaseException:
        old.rename(out)
        raise
    shutil.rmtree(old)
