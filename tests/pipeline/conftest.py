"""A store with artifacts of every kind, for what looks after stores."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ckd.pipeline import cli

PIPELINE = """\
store: store
device: cpu
domains:
  tiny: {{path: {raw}, k_core: 1}}
text: {{encoder: {encoder}, max_tokens: 12}}
teachers:
  uni: {{kind: unisrec, checkpoint: {teacher}}}
  ids:
    kind: sasrec
    train: {{hidden: 8, blocks: 1, max_length: 8, epochs: 1, batch_size: 16, folds: 2}}
  rec: {{kind: recformer, checkpoint: {recformer}}}
labels: {{top_k: 7, shard_rows: 128}}
students:
  small: {{kind: sasrec, hidden: 8, blocks: 1, max_length: 8}}
distill: {{epochs: 1}}
"""


@pytest.fixture(scope="session")
def made_once(tmp_path_factory, make_workplace, make_recformer, world):
    """A workplace with artifacts of every kind, all asked for by its configuration; nobody writes into it."""
    place = make_workplace(tmp_path_factory.mktemp("kept") / "workplace")
    recformer = make_recformer(tmp_path_factory.mktemp("recformer") / "teacher")
    text = PIPELINE.format(raw=world.raw, encoder=world.encoder, teacher=world.teacher, recformer=recformer)
    (place.folder / "pipeline.yaml").write_text(text)
    for command in ("pretrain", "precompute", "distill"):
        # Other shards than the configuration's: what is mended keeps its own cut.
        done = place.ckd(command, "--set", "labels.shard_rows=40")
        assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def kept(made_once, make_workplace, tmp_path):
    """A copy of it, times and all."""
    place = make_workplace(tmp_path / "kept", made_once.store)
    shutil.copy(made_once.folder / "pipeline.yaml", place.folder)
    return place


@pytest.fixture
def ckd(monkeypatch, capfd) -> Callable[..., tuple[int, list[str], str]]:
    """A function that runs `ckd` in a folder, in this process; returns code, lines, and what is said of a mistake."""

    def run(folder: Path, *arguments: str) -> tuple[int, list[str], str]:
        monkeypatch.chdir(folder)
        capfd.readouterr()
        code = cli.main(list(arguments))
        shown = capfd.readouterr()
        return code, shown.out.splitlines(), shown.err

    return run


@pytest.fixture(scope="session")
def other_items(world, tmp_path_factory):
    """The raw files with one title changed."""
    folder = tmp_path_factory.mktemp("other") / "raw"
    shutil.copytree(world.raw, folder)
    items = pq.read_table(folder / "items.parquet").to_pydict()
    items["title"][0] += " of another kind"
    schema = pq.read_schema(folder / "items.parquet")
    pq.write_table(pa.table(items, schema=schema), folder / "items.parquet")
    return folder
