"""Labels out of fold: any item is scored by the vectors of the teacher that gave the row."""

from typing import Any

import numpy as np
import pytest
import torch

from ckd.stages.distill.opinion import Opinion, scores_by_fold
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.teaching import Teaching
from ckd.storage.artifact import Artifact
from ckd.storage.errors import UserError
from ckd.storage.folds import fold_of
from ckd.storage.keys import Address
from ckd.storage.labels import FOLDS, LabelBlock, write_part
from ckd.storage.vectors import write_vectors

CPU = torch.device("cpu")
OF, WIDTH = 3, 5
IN_BATCH = DistillSettings.model_validate({"loss": {"in_batch": 1.0}})


class Folded:
    """A random world, labelled out of fold: the vectors of the teacher of all users, then of each fold."""

    def __init__(self, world: Any) -> None:
        self.world, self.corpus = world, world.corpus
        draw = np.random.default_rng(3)
        self.at = self.corpus.positions()
        self.state = draw.normal(0, 1, (len(self.at), WIDTH)).astype(np.float32)
        self.vectors = draw.normal(0, 1, (1 + OF, self.corpus.n_items, WIDTH)).astype(np.float32)

    def label(self, with_vectors: bool = True) -> Artifact:
        n = len(self.at)
        block = LabelBlock(
            **vars(self.at),
            items=np.zeros((n, 1), np.int32),
            logprobs=np.zeros((n, 1), np.float32),
            logsumexp=np.zeros(n, np.float32),
            kept_mass=np.full(n, 0.5, np.float32),
            target_logprob=np.zeros(n, np.float32),
            target_rank=np.ones(n, np.int32),
            entropy=np.zeros(n, np.float32),
            state=self.state,
        )
        with self.world.store.draft(
            Address("labels", {"v": with_vectors}, (("teacher", "t"), ("domain", "d")))
        ) as draft:
            write_part(draft, 0, block, self.corpus, {})
            if with_vectors:
                for number, vectors in enumerate(self.vectors):
                    write_vectors(draft, vectors, number)
            artifact: Artifact = draft.commit({FOLDS: OF})
            return artifact

    def opinion(self) -> Opinion:
        (opinion,) = Teaching.load(self.corpus, {"t": self.label()}, IN_BATCH, CPU)._opinions
        return opinion


@pytest.fixture
def folded(random_world: Any) -> Folded:
    return Folded(random_world)


def test_each_row_is_scored_by_the_vectors_of_the_fold_of_its_user(folded: Folded) -> None:
    opinion = folded.opinion()
    users = folded.corpus.user_ids.to_pylist()
    place = np.random.default_rng(0).permutation(np.flatnonzero(folded.at.split == 0))
    items = [3, 0, 7, 10]
    found = opinion.scores(opinion.row[torch.from_numpy(place)], torch.tensor(items))
    own = [fold_of(users[folded.at.user[one]], OF) for one in place]
    assert set(own) == {1, 2, 3}
    expected = [folded.vectors[fold][items] @ folded.state[one] for one, fold in zip(place, own, strict=True)]
    np.testing.assert_allclose(found.numpy(), np.stack(expected), rtol=1e-5, atol=1e-6)


def test_labels_out_of_fold_without_vectors_are_refused_where_they_are_needed(folded: Folded) -> None:
    with pytest.raises(UserError, match=r"distill\.loss\.in_batch needs the states of teacher t"):
        Teaching.load(folded.corpus, {"t": folded.label(with_vectors=False)}, IN_BATCH, CPU)


@pytest.mark.parametrize("folds", [[2, 0, 2, 1], [1, 1, 1], [0], []])
def test_rows_are_grouped_by_fold_and_come_back_in_their_order(folds: list[int]) -> None:
    draw = torch.Generator().manual_seed(0)
    state, vectors = torch.randn(len(folds), WIDTH, generator=draw), torch.randn(3, 4, WIDTH, generator=draw)
    found = scores_by_fold(state, torch.tensor(folds, dtype=torch.int64), vectors)
    expected = torch.einsum("nd,nmd->nm", state, vectors[folds])
    assert found.shape == (len(folds), 4)
    torch.testing.assert_close(found, expected)
