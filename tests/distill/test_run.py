"""What a run keeps of its student: measured as the evaluation's settings say."""

from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ckd.stages.distill.run import train_run
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
