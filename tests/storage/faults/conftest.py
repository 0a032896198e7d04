"""A domain so small that it is labelled hundreds of times, and what must be true of its store after a fault."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from driver import Driver

from ckd.storage.artifact import MAKERS
from ckd.storage.draft import FORMER, RECEIPTS
from ckd.storage.manifest import MANIFEST, SPARE
from ckd.storage.store import Store

WORDS = ("red", "blue", "steel", "paper", "tape", "pen")
USERS, ITEMS = 14, 12
PIPELINE = """\
store: disk/store
device: cpu
domains:
  tiny: {{path: {raw}, k_core: 1}}
text: {{encoder: {encoder}, max_tokens: 12}}
teachers:
  uni: {{kind: unisrec, checkpoint: {teacher}}}
labels: {{top_k: 5, batch_size: 16, shard_rows: 32, precision: float16}}
"""
TIMINGS = ("wall_seconds", "device_seconds", "digest")
"""What may differ between the manifests of two runs."""

Content = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A folder with ``pipeline.yaml``, and a disk of its own for the store."""

    folder: Path

    @property
    def store(self) -> Store:
        return Store(self.folder / "disk" / "store")

    def artifacts(self) -> Content:
        """Check that nothing that a reader can see is half, and return all of it, but for timings."""
        store, found = self.store, {}
        for kind in MAKERS:
            assert store.damaged(kind) == []
            for artifact in store.all(kind):
                artifact.verify()
                found |= {f"{artifact.path.name}/{path.name}": path.read_bytes() for path in _data(artifact.path)}
                found[f"{artifact.path.name}/{MANIFEST}"] = _without_timings(artifact.manifest)
        return found


def _data(folder: Path) -> list[Path]:
    # The last two are removed after the commit; where that fails they stay, and nobody looks at them.
    return [path for path in folder.iterdir() if path.name not in (MANIFEST, SPARE, RECEIPTS, FORMER)]


def _without_timings(manifest: Any) -> Any:
    whole = json.loads(json.dumps(dict(manifest)))
    for timing in TIMINGS:
        del whole[timing]
    for receipt in whole["files"].values():
        receipt["facts"].pop("device_seconds", None)
    for fact in ("ms_per_1000_users", "read_mb_per_second"):
        whole["facts"].pop(fact, None)
    return whole


@pytest.fixture(scope="session")
def long(pytestconfig: pytest.Config) -> bool:
    """Whether every case is to be gone through."""
    return bool(pytestconfig.getoption("faults") == "long")


@pytest.fixture(scope="session")
def start() -> Callable[..., "subprocess.Popen[str]"]:
    """A function that starts `ckd` in a folder, as users do."""
    code = "import sys; from ckd.pipeline.cli import main; sys.exit(main())"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}

    def started(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", code, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)

    return started


@pytest.fixture(scope="session")
def make_place(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Place]:
    """A function that makes a place of a folder, with an empty disk or a copy of another's."""
    raw = tmp_path_factory.mktemp("raw")
    _write_raw(raw)

    def make(folder: Path, disk: Path | None = None) -> Place:
        folder.mkdir(parents=True)
        text = PIPELINE.format(raw=raw, encoder=world.encoder, teacher=world.teacher)
        (folder / "pipeline.yaml").write_text(text)
        if disk is None:
            (folder / "disk").mkdir()
        else:
            shutil.copytree(disk, folder / "disk")
        return Place(folder)

    return make


@pytest.fixture(scope="session")
def driver(make_place: Callable[..., Place], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """The process whose children are killed."""
    started = Driver(make_place(tmp_path_factory.mktemp("driver") / "place").folder)
    yield started
    started.close()


@pytest.fixture(scope="session")
def undisturbed(make_place: Callable[..., Place], driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place after a `ckd precompute` that nothing disturbed; nobody writes into it."""
    place = make_place(tmp_path_factory.mktemp("undisturbed") / "place")
    done = driver.run(place.folder, "precompute")
    assert (done.code, done.err) == (0, "")
    return place


@pytest.fixture(scope="session")
def whole(undisturbed: Place) -> Content:
    """What a precompute that nothing disturbed leaves."""
    found = undisturbed.artifacts()
    assert sum(name.rpartition("/")[2].startswith("part-") for name in found) > 2
    return found


def _write_raw(folder: Path) -> None:
    draw = np.random.default_rng(11)
    ids = [f"item-{number:02d}" for number in range(ITEMS)]
    nothing = pa.nulls(ITEMS, pa.string())
    titles = [" ".join(draw.choice(WORDS, 3)) for _ in ids]
    items = {"item_id": ids, "title": titles, "brand": nothing, "categories": nothing, "description": nothing}
    pq.write_table(pa.table(items), folder / "items.parquet")
    rows = [
        (f"user-{user:02d}", ids[int(draw.integers(ITEMS))], 100 * user + step)
        for user in range(USERS)
        for step in range(int(draw.integers(4, 10)))
    ]
    users, chosen, times = zip(*rows, strict=True)
    interactions = {"user_id": users, "item_id": chosen, "timestamp": times}
    pq.write_table(pa.table(interactions), folder / "interactions.parquet")
