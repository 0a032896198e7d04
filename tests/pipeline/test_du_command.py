"""`ckd du`: the room that things take is what their files take."""

import re

import pyarrow.parquet as pq

from ckd.pipeline.report.teachers import bytes_per_pair
from ckd.storage.artifact import load_artifact
from ckd.storage.files import sha256_file
from ckd.storage.store import Store

COLUMNS = ["artifacts", "files", "MB", "share", "rows", "B/row", "B/pair"]


def table(lines):
    """``{(kind, teacher, domain): {column: cell}}``."""
    rows = [re.split(r" {2,}", line.strip()) for line in lines[2:] if line.strip()]
    found = [(row[: -len(COLUMNS)], row[-len(COLUMNS) :]) for row in rows]
    return {tuple(names): dict(zip(COLUMNS, cells, strict=True)) for names, cells in found}


def size_of(folders):
    return sum(path.stat().st_size for folder in folders for path in folder.iterdir() if "manifest" not in path.name)


def test_every_kind_and_the_labels_of_each_teacher_have_a_row(made_once, ckd):
    before = {path: path.is_dir() or sha256_file(path) for path in made_once.store.rglob("*")}
    code, lines, _ = ckd(made_once.folder, "du")
    assert code == 0
    found = table(lines)
    labels = {("labels", name, "tiny"): f"labels/teacher={name}/domain=tiny/key=*" for name in ("ids", "rec", "uni")}
    kinds = {(kind,): f"{kind}/*" for kind in ("corpus", "text", "teachers", "vectors", "agreement", "runs")}
    assert set(found) == {*labels, *kinds, ("total",)}
    total = size_of([path for pattern in (*labels.values(), *kinds.values()) for path in made_once.store.glob(pattern)])
    for names, pattern in (kinds | labels).items():
        folders = list(made_once.store.glob(pattern))
        size = size_of(folders)
        assert found[names]["artifacts"] == str(len(folders))
        assert found[names]["MB"] == f"{size / 1e6:,.1f}"
        assert found[names]["share"] == f"{size / total:.1%}"
    assert found[("total",)]["MB"] == f"{total / 1e6:,.1f}"
    assert {path: path.is_dir() or sha256_file(path) for path in made_once.store.rglob("*")} == before


def test_labels_say_what_a_row_and_a_stored_pair_take(made_once, ckd):
    row = table(ckd(made_once.folder, "du")[1])[("labels", "uni", "tiny")]
    (folder,) = made_once.store.glob("labels/teacher=uni/*/key=*")
    parts = sorted(folder.glob("part-*.parquet"))
    rows = sum(pq.read_metadata(part).num_rows for part in parts)
    assert row["rows"] == f"{rows:,}"
    assert row["B/row"] == f"{sum(part.stat().st_size for part in parts) / rows:,.1f}"
    assert row["B/pair"] == f"{bytes_per_pair(load_artifact(folder)):.2f}"


def test_what_is_not_finished_and_what_is_damaged_has_a_row_of_its_own(kept, ckd):
    labels = next(kept.store.glob("labels/teacher=uni/*/key=*"))
    Store(kept.store).reopen(load_artifact(labels), [])
    (next(kept.store.glob("runs/*")) / "model.safetensors").unlink()
    found = table(ckd(kept.folder, "du")[1])
    assert ("labels", "uni", "tiny") not in found
    assert (found[("not finished",)]["artifacts"], found[("damaged",)]["artifacts"]) == ("1", "1")
    assert found[("runs",)]["artifacts"] == "1"


def test_an_empty_store_takes_nothing(workplace, ckd):
    code, lines, _ = ckd(workplace.folder, "du", "--set", "store=nowhere")
    assert code == 0
    assert table(lines)[("total",)]["MB"] == "0.0"
