"""Labels from ranked lists have no states: the in_batch loss against the completed distribution, item by item."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.teaching import Teaching
from ckd.stages.precompute.label import label_corpus
from ckd.stages.precompute.settings import LabelSettings
from ckd.stages.students.scores import FullScores
from ckd.stages.teachers.contract import RankedLists
from ckd.storage.artifact import Artifact
from ckd.storage.errors import UserError
from ckd.storage.keys import Address

Array = npt.NDArray[Any]
CPU = torch.device("cpu")
LONGEST = 4


class Lists:
    """A random list at each position, or at some, and the distribution that it is completed to."""

    def __init__(self, world: Any, share: float = 1.0) -> None:
        self.world = world
        draw = np.random.default_rng(4)
        n, n_items = world.corpus.n_positions, world.corpus.n_items
        self.there = draw.random(n) < share
        lengths = np.where(self.there, draw.integers(1, LONGEST + 1, n), 0)
        self.items = [draw.permutation(n_items)[:length] for length in lengths]
        self.probability = np.zeros((n, n_items))
        logprobs = []
        for row, items in zip(self.probability, self.items, strict=True):
            p = np.sort(draw.dirichlet(np.full(len(items), 3.0)) if len(items) else np.empty(0))[::-1]
            p = (0.3 + 0.5 * draw.random()) * p
            row[:] = (1 - p.sum()) / (n_items - len(items))
            # Listed items are more probable than unlisted ones, but for one list in five.
            p = p if (p > row[0]).all() or draw.random() < 0.2 else np.full(len(p), 0.8 / max(len(p), 1))
            row[:] = (1 - p.sum()) / (n_items - len(items))
            row[items] = p
            logprobs.append(np.log(p))
        self.lists = RankedLists(
            np.append(0, np.cumsum(lengths)),
            np.concatenate(self.items).astype(np.int32),
            np.concatenate(logprobs),
            "lists.jsonl",
            skip_missing=True,
        )

    def label(self, top_k: int, precision: str = "float32") -> Artifact:
        settings = LabelSettings.model_validate({"top_k": top_k, "precision": precision})
        inputs = {"top_k": top_k, "precision": precision, "positions": int(self.there.sum())}
        address = Address("labels", inputs, (("teacher", "llm"), ("domain", "d")))
        return label_corpus(self.world.store, address, self.world.corpus, settings, lambda: self.lists, CPU)


def loss_settings(temperature: float = 1.0) -> DistillSettings:
    return DistillSettings.model_validate({"loss": {"in_batch": 1.0}, "temperature": temperature})


def needed(lists: Lists) -> int:
    """Stored items per position that hold all listed ones, by brute force."""
    worst = 0
    for p, items in zip(lists.probability, lists.items, strict=True):
        unlisted = np.setdiff1d(np.arange(len(p)), items)
        order = np.lexsort((np.arange(len(p)), -p))
        unequal = [place for place, item in enumerate(order, start=1) if not np.isclose(p[item], p[unlisted[0]])]
        worst = max([worst, *unequal]) if len(items) else worst
    return worst


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max())
    result: Array = powers / powers.sum()
    return result


@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_in_batch_is_that_of_the_completed_distribution(random_world: Any, share: float, temperature: float) -> None:
    corpus, lists = random_world.corpus, Lists(random_world, share)
    k = needed(lists)
    teaching = Teaching.load(corpus, {"llm": lists.label(k)}, loss_settings(temperature), CPU)
    draw = np.random.default_rng(6)
    at = corpus.positions()
    place = draw.permutation(np.flatnonzero(at.split == 0))
    logits = torch.from_numpy(draw.normal(0, 2, (len(place), corpus.n_items))).float()
    target = torch.from_numpy(at.target[place].astype(np.int64))
    value, labelled = teaching.losses(torch.from_numpy(place), FullScores(logits), target)
    assert labelled.tolist() == lists.there[place].tolist()
    batch = np.unique(at.target[place])
    for n, own in enumerate(logits.double().numpy()):
        if not lists.there[place[n]]:
            assert value[n] == 0
            continue
        p = softmax(np.log(lists.probability[place[n], batch]) / temperature)
        q = softmax(own[batch] / temperature)
        assert float(value[n]) == pytest.approx(temperature**2 * np.sum(p * np.log(p / q)), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("float16", 5e-3), ("bfloat16", 3e-2)])
def test_any_item_has_its_log_probability_whether_it_is_stored_or_not(
    random_world: Any, precision: str, tolerance: float
) -> None:
    corpus, lists = random_world.corpus, Lists(random_world)
    for k in (needed(lists), corpus.n_items):
        teaching = Teaching.load(corpus, {"llm": lists.label(k, precision)}, loss_settings(), CPU)
        (opinion,) = teaching._opinions
        place = np.flatnonzero(corpus.positions().split == 0)
        items = torch.tensor([7, 0, 10, 3])
        scores = opinion.scores(opinion.row[torch.from_numpy(place)], items).numpy()
        np.testing.assert_allclose(scores, np.log(lists.probability[place][:, items.numpy()]), atol=tolerance)


def test_lists_longer_than_what_is_stored_are_refused_in_one_line(random_world: Any) -> None:
    lists = Lists(random_world)
    enough = needed(lists)
    artifact = lists.label(enough - 1)
    with pytest.raises(UserError) as caught:
        Teaching.load(random_world.corpus, {"llm": artifact}, loss_settings(), CPU)
    assert str(caught.value) == (
        "distill.loss.in_batch needs all listed items of teacher llm in its labels; set labels.top_k to "
        f"{enough} or more and run `ckd precompute`, or leave in_batch out (of log-probabilities so low that unlisted "
        "items come before listed ones, scores: logit keeps the order)"
    )
    top_k = DistillSettings.model_validate({"loss": {"top_k": 1.0}})
    Teaching.load(random_world.corpus, {"llm": artifact}, top_k, CPU)


def test_lists_and_a_teacher_with_states_teach_together(random_world: Any) -> None:
    corpus, lists = random_world.corpus, Lists(random_world, 0.5)
    draw = np.random.default_rng(2)
    state, vectors = draw.normal(0, 1, (corpus.n_positions, 3)), draw.normal(0, 1, (corpus.n_items, 3))
    other = random_world.label("encoder", state @ vectors.T, 4, state=state, vectors=vectors)
    labels = {"llm": lists.label(needed(lists)), "encoder": other}
    teaching = Teaching.load(corpus, labels, DistillSettings(), CPU)
    place = torch.from_numpy(np.flatnonzero(corpus.positions().split == 0))
    logits = torch.zeros(len(place), corpus.n_items, requires_grad=True)
    target = torch.from_numpy(corpus.positions().target[place.numpy()].astype(np.int64))
    value, labelled = teaching.losses(place, FullScores(logits), target)
    value.sum().backward()
    assert labelled.all()
    assert torch.isfinite(value).all()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
