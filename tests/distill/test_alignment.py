"""Teachers meet by user and position: one that lacks some, or stores them in other shards, against dense labels."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ckd.stages.distill.curriculum import TERMS, difficulty
from ckd.stages.distill.holding import training_labels
from ckd.stages.distill.run import prepare_lesson
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.teaching import Teaching, row_index
from ckd.stages.distill.train import train
from ckd.stages.distill.weighting import Weights, weigh
from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import side_by_side
from ckd.stages.students.scores import FullScores
from ckd.storage.artifact import Artifact

Array = npt.NDArray[Any]
CPU = torch.device("cpu")
WIDTH = 5
OPTIONS = {
    "top_k": {"loss": {"top_k": 1.0}},
    "in_batch": {"loss": {"in_batch": 1.0}},
    "both, gated by confidence and Jaccard index": {
        "loss": {"top_k": 0.5, "in_batch": 1.0},
        "weighting": {"consistency": "top_k_jaccard", "gate_confidence": 1.0},
        "temperature": 2.0,
    },
}


class Teachers:
    """A teacher that labelled everything, and one that also exists without some users and positions."""

    def __init__(self, world: Any) -> None:
        self.world, self.corpus = world, world.corpus
        at = self.corpus.positions()
        draw = np.random.default_rng(11)
        self.known = (at.user % 3 != 1) & (draw.random(len(at)) < 0.8)
        self.place = np.flatnonzero(at.split == 0)
        self.opinions = {
            name: (draw.normal(0, 1, (len(at), WIDTH)), draw.normal(0, 1, (self.corpus.n_items, WIDTH)))
            for name in ("whole", "other")
        }
        self.whole = self.label("whole", "whole", np.arange(len(at)), 1)
        self.dense = self.label("dense", "other", np.arange(len(at)), 1)
        self.partial = self.label("partial", "other", np.flatnonzero(self.known), 5)

    def label(self, stored_as: str, name: str, rows: Array, shards: int) -> Artifact:
        state, vectors = self.opinions[name]
        artifact: Artifact = self.world.label(
            stored_as, state @ vectors.T, 4, rows=rows, shards=shards, state=state, vectors=vectors
        )
        return artifact

    def weights(self, labels: dict[str, Artifact], option: DistillSettings) -> Weights:
        blocks = [training_labels(artifact, self.corpus, option) for artifact in labels.values()]
        return weigh(blocks, [row_index(block, self.corpus) for block in blocks], self.corpus.n_items, option.weighting)

    def losses(self, labels: dict[str, Artifact], option: DistillSettings) -> tuple[Array, Array, Teaching]:
        """What is taught at every training position, whether anything is, and the teaching itself."""
        scores = torch.randn(len(self.place), self.corpus.n_items, generator=torch.Generator().manual_seed(2))
        target = torch.from_numpy(self.corpus.positions().target[self.place].astype(np.int64))
        teaching = Teaching.load(self.corpus, labels, option, CPU)
        value = teaching.losses(torch.from_numpy(self.place), FullScores(scores), torch.unique(target))
        labelled = teaching.labelled_at(torch.from_numpy(self.place))
        return value.numpy(), labelled.numpy(), teaching


@pytest.fixture
def teachers(make_world: Any) -> Teachers:
    draw = np.random.default_rng(4)
    return Teachers(make_world([draw.integers(0, 11, length).tolist() for length in draw.integers(4, 10, 24)], 11))


def settings(**values: Any) -> DistillSettings:
    return DistillSettings.model_validate(values)


def test_rows_and_positions_differ_for_the_teacher_that_lacks_some(teachers: Teachers) -> None:
    block = training_labels(teachers.partial, teachers.corpus, settings())
    row, known = row_index(block, teachers.corpus), teachers.known[teachers.place]
    assert len(teachers.partial.files) > len(teachers.whole.files)
    assert 0 < known.sum() < len(known)
    np.testing.assert_array_equal(row[teachers.place] >= 0, known)
    assert (row != row_index(training_labels(teachers.whole, teachers.corpus, settings()), teachers.corpus)).sum() > 9


@pytest.mark.parametrize("option", OPTIONS.values(), ids=list(OPTIONS))
def test_losses_are_those_of_dense_labels_where_both_know_and_of_the_one_that_knows_elsewhere(
    teachers: Teachers, option: dict[str, Any]
) -> None:
    known, chosen = teachers.known[teachers.place], settings(**option)
    value, labelled, teaching = teachers.losses({"other": teachers.partial, "whole": teachers.whole}, chosen)
    both, _, dense = teachers.losses({"other": teachers.dense, "whole": teachers.whole}, chosen)
    only, _, alone = teachers.losses({"whole": teachers.whole}, chosen)
    assert (np.abs(both - only) > 1e-3).mean() > 0.9
    assert labelled.all()
    np.testing.assert_allclose(value, np.where(known, both, only), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(teaching.gate, np.where(teachers.known, dense.gate, alone.gate), rtol=1e-6)


@pytest.mark.parametrize("option", OPTIONS.values(), ids=list(OPTIONS))
def test_what_only_the_other_teacher_knows_is_taught_by_it_alone(teachers: Teachers, option: dict[str, Any]) -> None:
    chosen = settings(**option)
    rest = teachers.label("rest", "whole", np.flatnonzero(~teachers.known), 3)
    value, labelled, _ = teachers.losses({"other": teachers.partial, "whole": rest}, chosen)
    first, _, _ = teachers.losses({"other": teachers.dense}, chosen)
    second, _, _ = teachers.losses({"whole": teachers.whole}, chosen)
    assert labelled.all()
    np.testing.assert_allclose(value, np.where(teachers.known[teachers.place], first, second), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("option", OPTIONS.values(), ids=list(OPTIONS))
def test_weights_are_those_of_dense_labels_where_both_know_and_one_elsewhere(
    teachers: Teachers, option: dict[str, Any]
) -> None:
    chosen = settings(**option)
    found = teachers.weights({"other": teachers.partial, "whole": teachers.whole}, chosen)
    dense = teachers.weights({"other": teachers.dense, "whole": teachers.whole}, chosen)
    known, place = teachers.known[teachers.place], teachers.place
    for measured in ("teacher", "confidence", "consistency"):
        one, other = getattr(found, measured)[:, place], getattr(dense, measured)[:, place]
        np.testing.assert_allclose(one[:, known], other[:, known], rtol=1e-9)
        assert not one[0, ~known].any()
    np.testing.assert_array_equal(found.teacher[1, place][~known], 1)
    np.testing.assert_array_equal(found.consistency[1, place][~known], 1)
    np.testing.assert_allclose(found.confidence[1, place], dense.confidence[1, place])


def test_disagreement_is_that_of_the_positions_that_both_know(teachers: Teachers) -> None:
    consistency = teachers.weights({"other": teachers.dense, "whole": teachers.whole}, settings()).consistency[1]
    at, both = teachers.corpus.positions(), teachers.known & (teachers.corpus.positions().split == 0)
    values = [
        float(np.mean(1 - consistency[mine])) if (mine := both & (at.user == user)).any() else -1.0
        for user in range(teachers.corpus.n_users)
    ]
    assert values.count(-1.0) > 1
    assert len(set(values)) > 9
    found = difficulty(
        teachers.corpus,
        teachers.world.artifact,
        {"other": teachers.partial, "whole": teachers.whole},
        {"disagreement": 1},
    )
    assert np.argsort(found).tolist() == np.argsort(values, kind="stable").tolist()


def test_without_a_second_teacher_disagreement_orders_nobody(teachers: Teachers) -> None:
    found, plain = (
        difficulty(teachers.corpus, teachers.world.artifact, {"whole": teachers.whole}, dict.fromkeys(terms, 1.0))
        for terms in (("teacher_loss", "disagreement"), ("teacher_loss",))
    )
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("term", TERMS)
def test_where_shards_end_changes_no_difficulty(teachers: Teachers, term: str) -> None:
    one_shard = teachers.label("one shard", "other", np.flatnonzero(teachers.known), 1)
    first, second = (
        difficulty(teachers.corpus, teachers.world.artifact, {"other": other, "whole": teachers.whole}, {term: 1.0})
        for other in (one_shard, teachers.partial)
    )
    np.testing.assert_array_equal(first, second)


def test_a_domain_that_only_one_teacher_labelled_is_taught_by_it_alone(teachers: Teachers) -> None:
    corpus, everything = teachers.corpus, dict.fromkeys(TERMS, 1.0)
    option = settings(epochs=2, batch_size=8, curriculum={"difficulty": everything, "warmup": 1})
    lesson = prepare_lesson(corpus, teachers.world.artifact, {"whole": teachers.whole}, option, CPU)
    np.testing.assert_allclose(np.sort(lesson.hardness), np.linspace(0, 1, corpus.n_users))
    np.testing.assert_array_equal(lesson.teaching.gate[teachers.place], 1)
    assert lesson.teaching.labelled[teachers.place].all()
    kind = STUDENTS.load("sasrec")
    torch.manual_seed(0)
    sizes = kind.Settings(hidden=8, blocks=1, max_length=8)
    network = kind.build(sizes, side_by_side([corpus]))
    curve = train(network, side_by_side([corpus]), [lesson], sizes, option, seed=0)
    assert all(row["teacher_loss"] > 0 for row in curve)
