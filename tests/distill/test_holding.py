"""Labels in memory and labels on the disk: the same training, bit for bit, in bounded memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ckd.stages.distill.holding import scratch_of, training_labels
from ckd.stages.distill.run import prepare_lesson, train_run
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.teaching import Teaching
from ckd.stages.evaluate.settings import EvaluateSettings
from ckd.stages.students.sasrec import Settings as SASRec
from ckd.storage.artifact import Artifact
from ckd.storage.errors import UserError
from ckd.storage.files import sha256_file
from ckd.storage.keys import Address
from ckd.storage.labels import memory_of, read_labels

CPU = torch.device("cpu")
TEACHERS = ("a", "b")


@pytest.fixture(scope="module")
def school(shared_world: Any) -> Any:
    """A domain with the labels of two teachers, which lack some positions each, in three shards."""
    draw, corpus = np.random.default_rng(5), shared_world.corpus
    labels = {}
    for name in TEACHERS:
        state, vectors = draw.normal(size=(corpus.n_positions, 4)), draw.normal(size=(corpus.n_items, 4))
        rows = np.flatnonzero(draw.random(corpus.n_positions) < 0.9)
        labels[name] = shared_world.label(name, state @ vectors.T, 5, rows=rows, shards=3, state=state, vectors=vectors)
    return shared_world, labels


OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "every loss": {"loss": {"in_batch": 1, "top_k": 1, "top_k_plus_student": 1, "rank": 1}},
    "fewer items": {"teacher_items": 3, "loss": {"top_k": 1}},
    "shuffled": {"control": "shuffled"},
    "one_hot": {"control": "one_hot", "loss": {"top_k": 1, "rank": 1}},
    "item_start": {"item_start": "teacher"},
    "rank-biased": {"weighting": {"consistency": "rank_biased_overlap"}},
}


def run_of(school: Any, name: str, memory: float, scratch: Path | None) -> Artifact:
    world, labels = school
    option = {"epochs": 2, "batch_size": 4, "labels_in_memory": memory, "scratch": scratch, **OPTIONS[name]}
    settings = DistillSettings.model_validate(option)
    return train_run(
        world.store,
        Address("runs", {"options": name, "memory": memory}),
        {"d": world.corpus},
        SASRec(hidden=8, heads=1, blocks=1, max_length=8),
        settings,
        EvaluateSettings(),
        lambda: {"d": prepare_lesson(world.corpus, world.artifact, labels, settings, CPU)},
        3,
        CPU,
    )


@pytest.mark.parametrize("name", list(OPTIONS))
def test_where_labels_are_held_changes_no_byte_of_a_run(school: Any, name: str, tmp_path: Path) -> None:
    inside, outside = run_of(school, name, 8, tmp_path / "unused"), run_of(school, name, 0, tmp_path / "used")
    assert not (tmp_path / "unused").exists()
    assert list((tmp_path / "used").iterdir()) == []
    timeless = ("model.safetensors", "metrics.parquet", "ranks.parquet", "config.json")
    assert [sha256_file(inside.path / file) for file in timeless] == [
        sha256_file(outside.path / file) for file in timeless
    ]


def test_labels_are_streamed_where_those_of_all_teachers_together_pass_the_limit(school: Any) -> None:
    _, labels = school
    # Per label: five codes, five log-probabilities and a state of four, of four bytes each.
    rows = sum(artifact.files[name].rows for artifact in labels.values() for name in artifact.files if "part" in name)
    size = rows * 4 * (5 + 5 + 4)
    assert sum(memory_of(artifact, ["items", "logprobs", "state"]) for artifact in labels.values()) == size

    def folder(memory: float, **options: Any) -> Path | None:
        option = DistillSettings.model_validate({"labels_in_memory": memory, **options})
        return scratch_of(labels.values(), option)

    assert folder(size / 1e9) is None
    assert folder((size - 1) / 1e9) == labels["a"].path.parent
    assert folder(0, scratch=Path("/elsewhere")) == Path("/elsewhere")
    # Losses that read no state do not load it.
    assert folder((size - 1) / 1e9, loss={"top_k": 1}) is None


def test_streamed_labels_are_left_on_the_disk_and_are_those_in_memory(school: Any, tmp_path: Path) -> None:
    world, labels = school
    option = DistillSettings()
    outside = training_labels(labels["a"], world.corpus, option, tmp_path)
    block = read_labels(labels["a"], world.corpus)
    inside = block.take(np.flatnonzero(block.split == 0))
    for name, column in vars(inside).items():
        found = getattr(outside, name)
        assert found.dtype == column.dtype
        np.testing.assert_array_equal(found, column, err_msg=name)
    assert {outside.items.strides[0], outside.logprobs.strides[0], outside.state.strides[0]} == {4 * (5 + 5 + 4)}


def test_a_folder_without_room_is_named_before_anything_is_trained(school: Any, tmp_path: Path) -> None:
    world, labels = school
    (tmp_path / "file").write_text("")
    option = DistillSettings.model_validate({"labels_in_memory": 0, "scratch": tmp_path / "file" / "folder"})
    with pytest.raises(UserError, match=r"file/folder: .* name another folder as distill\.scratch"):
        Teaching.load(world.corpus, labels, option, CPU)


PEAK = """
import json, sys, tracemalloc
from pathlib import Path
import numpy as np, pyarrow as pa, torch
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.teaching import Teaching
from ckd.storage.artifact import load_artifact
from ckd.storage.corpus import read_corpus
corpus = read_corpus(load_artifact(Path(sys.argv[1])))
labels = {name: load_artifact(Path(name)) for name in sys.argv[4:]}
option = DistillSettings(labels_in_memory=float(sys.argv[2]), scratch=sys.argv[3], loss={"top_k": 1, "rank": 1})
tracemalloc.start()
teaching = Teaching.load(corpus, labels, option, torch.device("cpu"))
print(json.dumps([tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory(), len(teaching.gate)]))
"""


def test_labels_larger_than_the_limit_take_a_fraction_of_their_size(make_world: Any, tmp_path: Path) -> None:
    """Two teachers, 54,000 labels of 100 items each, 77 MB taught; what numpy and arrow take at most."""
    draw, users, length, n_items, k = np.random.default_rng(0), 3_000, 19, 120, 100
    world = make_world(draw.integers(0, n_items, (users, length)).tolist(), n_items)
    labels = []
    for teacher in TEACHERS:
        scores = draw.normal(size=(world.corpus.n_positions, n_items))
        labels.append(world.label(teacher, scores, k, shards=4))
    size = len(TEACHERS) * users * (length - 3) * k * 8

    def peak(memory: float) -> int:
        arguments = [str(world.artifact.path), str(memory), str(tmp_path), *(str(each.path) for each in labels)]
        done = subprocess.run([sys.executable, "-c", PEAK, *arguments], check=True, capture_output=True, text=True)
        taken, positions = json.loads(done.stdout)
        assert positions == world.corpus.n_positions
        return int(taken)

    inside, outside = peak(8), peak(0)
    assert inside > size
    assert outside < 0.5 * size
    print(f"{size / 1e6:.0f} MB of labels: at most {inside / 1e6:.0f} MB in memory, {outside / 1e6:.0f} MB streamed")
