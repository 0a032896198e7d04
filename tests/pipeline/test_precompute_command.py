"""`ckd precompute`: the table, what it says of a wrong path, and a disk that fills up under it."""

import errno
import json
import math
import os
import resource
import shutil
import subprocess

import pyarrow.parquet as pq
import pytest

from ckd.pipeline import cli
from ckd.pipeline.config.load import load_configuration
from ckd.pipeline.plan import Plan
from ckd.pipeline.tasks.precompute import labels_of
from ckd.storage.errors import UserError
from ckd.storage.files import sha256_file

SMALL = ("--set", "labels.shard_rows=8")
ROOM = 120 * 1024
"""Bytes that are left on the nearly full disk: enough for some shards, too little for all."""
COLUMNS = [
    *("teacher", "domain", "positions", "kept mass", "R@10 valid", "N@10 valid", "R@10 test", "N@10 test"),
    *("R@50 test", "N@50 test", "B/pair", "MB", "wall s", "device s"),
]


def contents(folder):
    return {path: path.is_dir() or sha256_file(path) for path in folder.rglob("*")}


def shards_of(folder):
    return {path.name: sha256_file(path) for path in folder.glob("*.parquet")}


def recall(ranks, k):
    return sum(rank <= k for rank in ranks) / len(ranks)


def ndcg(ranks, k):
    return sum(1 / math.log2(1 + rank) for rank in ranks if rank <= k) / len(ranks)


def test_the_table_says_what_the_stored_labels_say_and_nothing_is_computed_for_it(labelled):
    before = contents(labelled.store)
    done = labelled.ckd("precompute")
    assert done.returncode == 0, done.stderr
    assert contents(labelled.store) == before
    header, _, line, *_ = done.stdout.splitlines()
    assert header.split() == " ".join(COLUMNS).split()
    row = dict(zip(COLUMNS, line.split(), strict=True))

    columns = ["split", "target_rank", "kept_mass"]
    parts = [pq.read_table(path, columns=columns) for path in labelled.labels.glob("part-*.parquet")]
    labels = [label for part in parts for label in part.to_pylist()]
    valid, test = ([label["target_rank"] for label in labels if label["split"] == split] for split in ("valid", "test"))
    manifest = json.loads((labelled.labels / "manifest.json").read_text())
    assert float(row.pop("B/pair")) > 0
    assert row == {
        "teacher": "uni",
        "domain": "tiny",
        "positions": f"{len(labels):,}",
        "kept mass": f"{sum(label['kept_mass'] for label in labels) / len(labels):.3f}",
        "R@10 valid": f"{recall(valid, 10):.4f}",
        "N@10 valid": f"{ndcg(valid, 10):.4f}",
        "R@10 test": f"{recall(test, 10):.4f}",
        "N@10 test": f"{ndcg(test, 10):.4f}",
        "R@50 test": f"{recall(test, 50):.4f}",
        "N@50 test": f"{ndcg(test, 50):.4f}",
        "MB": f"{sum(path.stat().st_size for path in labelled.labels.glob('*.parquet')) / 1e6:.1f}",
        "wall s": f"{manifest['wall_seconds']:.1f}",
        "device s": f"{manifest['device_seconds']:.1f}",
    }


# --- wrong paths


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("teachers.uni.checkpoint=nowhere", "teachers.uni.checkpoint: {here}/nowhere/config.json does not exist; "),
        ("teachers.uni.checkpoint=half", "teachers.uni.checkpoint: {here}/half/model.safetensors does not exist; "),
        ("text.encoder=./nowhere", "text.encoder: there is no folder {here}/nowhere"),
        ("text.encoder=./half", "text.encoder: {here}/half has no tokenizer.json; "),
        ("text.encoder=nobody/nothing", "text.encoder: nobody/nothing is not on this machine and the hub cannot be "),
        ("domains.tiny.path=nowhere", "the data folder {here}/nowhere does not exist; set the domain's path "),
        ("domains.tiny.path=half", "{here}/half has no items file, only config.json; "),
    ],
)
def test_a_wrong_path_is_one_line_and_nothing_is_written(workplace, monkeypatch, capfd, override, said):
    (workplace.folder / "half").mkdir()
    (workplace.folder / "half" / "config.json").write_text("{}")
    before = contents(workplace.folder)
    monkeypatch.chdir(workplace.folder)
    assert cli.main(["precompute", "--set", override]) == 2
    shown = capfd.readouterr()
    (line,) = shown.err.splitlines()
    assert line.startswith(f"error: {said.format(here=workplace.folder)}")
    assert shown.out == ""
    assert contents(workplace.folder) == before


def test_the_process_ends_with_that_line_and_code_2(workplace):
    done = workplace.ckd("precompute", "--set", "teachers.uni.checkpoint=nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("error: teachers.uni.checkpoint: ")
    assert done.stderr.count("\n") == 1


# --- a full disk


def mounted(folder):
    """Mount a small file system in memory; False where that is not allowed."""
    if shutil.which("mount") is None:
        return False
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    return subprocess.run(mount, capture_output=True, check=False).returncode == 0


def fill(path):
    """Write until the disk is full, but for a little room."""
    with path.open("wb", buffering=0) as stream:
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            while True:
                stream.write(bytes(4096))
        stream.truncate(path.stat().st_size - ROOM)


@pytest.fixture
def cramped(workplace):
    """A workplace without room for its labels, options that make it so, the error, and what makes room.

    The store is a file system of its own that is nearly full, or, where none can be mounted, files may not get large.
    """
    prepared = workplace.store.rename(workplace.folder / "prepared")
    workplace.store.mkdir()
    small_disk = mounted(workplace.store)
    shutil.copytree(prepared, workplace.store, dirs_exist_ok=True)
    try:
        if small_disk:
            ballast = workplace.store / "ballast"
            fill(ballast)
            yield workplace, {}, "error: disk full", ballast.unlink
        else:
            limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))}
            yield workplace, limit, os.strerror(errno.EFBIG), lambda: None
    finally:
        if small_disk:
            subprocess.run(["umount", str(workplace.store)], check=True)


def test_a_disk_that_fills_up_harms_nothing_and_with_room_the_labels_are_the_same(cramped, labelled):
    place, options, error, make_room = cramped
    done = place.ckd("precompute", *SMALL, **options)
    assert done.returncode != 0
    assert error in done.stderr.splitlines()[-1]
    if not options:
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert list(place.partial.glob("part-*.parquet"))
    assert not list(place.store.glob("labels/*/*/key=*"))
    make_room()
    again = place.ckd("precompute", *SMALL)
    assert again.returncode == 0, again.stderr
    assert shards_of(place.labels) == shards_of(labelled.labels)


def test_a_teacher_that_changes_after_its_digest_was_taken_labels_nothing(workplace, world, make_teacher):
    """Between the digest and the labels the texts of a whole catalogue may be encoded, which takes hours."""
    own = make_teacher(workplace.folder / "own", world.text.encoder, 6)
    plan = Plan(load_configuration(workplace.folder / "pipeline.yaml", [f"teachers.uni.checkpoint={own}"]))
    address = plan.labels("uni", "tiny")
    make_teacher(own, world.text.encoder, 7)
    with pytest.raises(UserError, match=r"^teachers\.uni: its files changed since this command began; run the same"):
        labels_of(plan, "uni", "tiny")
    assert plan.store.find(address) is None
