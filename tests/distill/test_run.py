"""What a run keeps of its student: measured as the evaluation's settings say."""

from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ckd.stages.distill.run import prepare_lesson, train_run
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.evaluate.ranking import rank_targets
from ckd.stages.evaluate.settings import EvaluateSettings
from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import Domain
from ckd.stages.students.trained import load_student
from ckd.storage.artifact import Artifact
from ckd.storage.keys import Address
from ckd.storage.runs import read_metrics, read_ranks

CPU = torch.device("cpu")


def run_of(world: Any, mask: bool) -> Artifact:
    student = STUDENTS.load("sasrec").Settings(hidden=16, heads=1, blocks=1, max_length=8, learning_rate=1e-2)
    settings, evaluate = DistillSettings(epochs=6, batch_size=4), EvaluateSettings(mask_history=mask)
    corpora = {"d": world.corpus}
    return train_run(world.store, Address("runs", {"mask": mask}), corpora, student, settings, evaluate, None, 0, CPU)


def test_a_masked_history_is_so_in_the_ranks_and_in_what_chooses_the_epoch(random_world: Any) -> None:
    corpus, ranks, curves = random_world.corpus, {}, {}
    for mask in (False, True):
        run = run_of(random_world, mask)
        scorer = load_student(run, {"d": corpus}).scorer(Domain(0, corpus))
        for split in ("valid", "test"):
            ranks[mask, split] = read_ranks(run, "d", split)
            np.testing.assert_array_equal(ranks[mask, split], rank_targets(scorer, corpus, split, mask))
        curves[mask] = pq.read_table(run.path / "curve.parquet")["ndcg@10"].to_pylist()
        assert max(curves[mask]) == pytest.approx(read_metrics(run, "d")["valid"]["ndcg@10"], abs=1e-6)
    assert curves[False] != curves[True]
    assert any((ranks[False, split] != ranks[True, split]).any() for split in ("valid", "test"))


def test_the_order_in_which_teachers_stand_in_the_file_changes_no_bit(random_world: Any) -> None:
    """Sums of three numbers are rounded, so an order must be chosen; it is in no key."""
    corpus, draw = random_world.corpus, np.random.default_rng(0)
    scores = {name: draw.normal(size=(corpus.n_positions, corpus.n_items)) for name in "abc"}
    labels = {name: random_world.label(name, values, 4) for name, values in scores.items()}
    settings = DistillSettings(epochs=2, batch_size=4, loss={"top_k": 1.0}, temperature=1.7)
    weights = []
    for order in ("abc", "cab", "bca"):
        given = {name: labels[name] for name in order}
        lesson = prepare_lesson(corpus, random_world.artifact, given, settings, CPU)
        student = STUDENTS.load("sasrec").Settings(hidden=16, heads=1, blocks=1, max_length=8, learning_rate=1e-2)
        address = Address("runs", {"order": order})
        corpora, evaluate = {"d": corpus}, EvaluateSettings()
        lessons = {"d": lesson}
        run = train_run(
            random_world.store, address, corpora, student, settings, evaluate, lambda got=lessons: got, 0, CPU
        )
        weights.append((run.path / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] == weights[2]
