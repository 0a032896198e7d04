"""Labels from ranked lists have no states: losses against the completed distribution, and against the lists' order."""

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
from ckd.storage.labels import read_labels

Array = npt.NDArray[Any]
CPU = torch.device("cpu")
LONGEST = 4


class Lists:
    """A random list at each position, or at some, and the distribution that it is completed to."""

    def __init__(self, world: Any, share: float = 1.0, orderly: bool = False) -> None:
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
            # Listed items are more probable than unlisted ones, but for one list in five; orderly ones are clearly so.
            ordered = (p > (1.2 if orderly else 1) * row[0]).all() or (not orderly and draw.random() < 0.2)
            p = p if ordered else np.full(len(p), 0.8 / max(len(p), 1))
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

    def label(self, top_k: int, precision: str = "exact") -> Artifact:
        settings = LabelSettings.model_validate({"top_k": top_k, "precision": precision})
        inputs = {"lists": self.probability.tolist(), "top_k": top_k, "precision": precision}
        address = Address("labels", inputs, (("teacher", "llm"), ("domain", "d")))
        return label_corpus(self.world.store, address, self.world.corpus, settings, lambda: self.lists, CPU)


def loss_settings(temperature: float = 1.0, loss: str = "in_batch", **values: Any) -> DistillSettings:
    return DistillSettings.model_validate({"loss": {loss: 1.0}, "temperature": temperature, **values})


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
    value = teaching.losses(torch.from_numpy(place), FullScores(logits), torch.unique(target))
    labelled = teaching.labelled_at(torch.from_numpy(place))
    assert labelled.tolist() == lists.there[place].tolist()
    batch = np.unique(at.target[place])
    for n, own in enumerate(logits.double().numpy()):
        if not lists.there[place[n]]:
            assert value[n] == 0
            continue
        p = softmax(np.log(lists.probability[place[n], batch]) / temperature)
        q = softmax(own[batch] / temperature)
        assert float(value[n]) == pytest.approx(temperature**2 * np.sum(p * np.log(p / q)), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("exact", 1e-5), ("fixed", 1e-3), ("float16", 5e-3), ("bfloat16", 3e-2)]
)
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
        own = torch.from_numpy(
            np.random.default_rng(0).permuted(np.tile(np.arange(11), (len(place), 1)), axis=1)[:, :5]
        )
        logprobs = opinion.scores_of(opinion.row[torch.from_numpy(place)], own).numpy()
        wanted = np.log(np.take_along_axis(lists.probability[place], own.numpy(), axis=1))
        np.testing.assert_allclose(logprobs, wanted, atol=tolerance)


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


def taught(lists: Lists, labels: Artifact, option: DistillSettings) -> tuple[Array, Array, Array]:
    """The training positions that have a list, random logits there, and what is taught."""
    corpus = lists.world.corpus
    at = corpus.positions()
    place = np.flatnonzero((at.split == 0) & lists.there)
    logits = np.random.default_rng(6).normal(0, 2, (len(place), corpus.n_items))
    teaching = Teaching.load(corpus, {"llm": labels}, option, CPU)
    target = torch.from_numpy(at.target[place].astype(np.int64))
    value = teaching.losses(torch.from_numpy(place), FullScores(torch.tensor(logits).float()), torch.unique(target))
    labelled = teaching.labelled_at(torch.from_numpy(place))
    assert labelled.all()
    return place, logits, value.numpy()


@pytest.mark.parametrize("m", [1, 4, 11])
def test_the_students_own_items_have_their_share_of_the_rest(random_world: Any, m: int) -> None:
    lists = Lists(random_world, 0.6)
    k = needed(lists)
    option = loss_settings(2.0, "top_k_plus_student", student_items=m, teacher_temperature={"llm": 1.5})
    for n, own, value in zip(*taught(lists, lists.label(k), option), strict=True):
        order = np.lexsort((np.arange(11), -lists.probability[n]))
        items = sorted({*order[:k].tolist(), *np.argsort(-own)[:m].tolist()})
        p, q = lists.probability[n][items], softmax(own)[items]
        p, q = (np.append(cells, max(1 - cells.sum(), 1e-6)) for cells in (p, q))
        p, q = p ** (1 / 3.0), q ** (1 / 2.0)
        p, q = p / p.sum(), q / q.sum()
        assert value == pytest.approx(4 * np.sum(p * np.log(p / q)), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("precision", ["exact", "fixed", "float16", "bfloat16"])
@pytest.mark.parametrize("k", [2, 4, 7, 11])
def test_rank_reads_the_order_of_what_is_listed_and_of_nothing_else(random_world: Any, k: int, precision: str) -> None:
    lists = Lists(random_world, 0.6, orderly=True)
    assert {len(items) for items in lists.items} > {1, 4}
    labels = lists.label(k, precision)
    stored = {n: row for row, n in enumerate(np.flatnonzero(lists.there))}
    block = read_labels(labels, random_world.corpus)
    for n, own, value in zip(*taught(lists, labels, loss_settings(loss="rank")), strict=True):
        # Items that rounding makes equal are in no order, nor is what a list is filled up with.
        codes, logprobs = block.items[stored[n]].tolist(), block.logprobs[stored[n]].tolist()
        # Of several that are as probable as the last one more may have been cut off.
        cut_in_a_tie = k < needed(lists) and logprobs.count(logprobs[-1]) > 1
        surprises = []
        for place, item in enumerate(codes[: min(k, len(lists.items[n]))]):
            if cut_in_a_tie and logprobs[place] == logprobs[-1]:
                continue
            ahead = [code for code, p in zip(codes, logprobs, strict=True) if p >= logprobs[place] and code != item]
            left = np.setdiff1d(np.arange(11), ahead)
            surprises.append(np.log(np.exp(own[left]).sum()) - own[item])
        assert value == pytest.approx(np.mean(surprises) if surprises else 0.0, rel=1e-3, abs=1e-4)


def test_lists_with_unlisted_items_before_listed_ones_have_no_order_to_learn(random_world: Any) -> None:
    lists = Lists(random_world)
    with pytest.raises(UserError) as caught:
        Teaching.load(random_world.corpus, {"llm": lists.label(5)}, loss_settings(loss="rank"), CPU)
    assert str(caught.value) == (
        "distill.loss.rank needs the order of teacher llm, and some of its log-probabilities are so low that unlisted "
        "items, which have no order, come before listed ones; give the teacher scores: logit, set labels.top_k to 11 "
        "(the whole catalogue) and run `ckd precompute`, or leave rank out"
    )
    Teaching.load(random_world.corpus, {"llm": lists.label(11)}, loss_settings(loss="rank"), CPU)
    for k, mend in [
        (11, "give the teacher scores: logit, set distill.teacher_items to 11 or leave it out, or leave rank out"),
        (5, "run `ckd precompute`, and set distill.teacher_items to 11 or leave it out, or leave rank out"),
    ]:
        with pytest.raises(UserError) as caught:
            options = loss_settings(loss="rank", teacher_items=4)
            Teaching.load(random_world.corpus, {"llm": lists.label(k)}, options, CPU)
        assert str(caught.value).endswith(mend)
    orderly = Lists(random_world, orderly=True)
    Teaching.load(random_world.corpus, {"llm": orderly.label(5)}, loss_settings(loss="rank"), CPU)


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
    value = teaching.losses(place, FullScores(logits), torch.unique(target))
    labelled = teaching.labelled_at(place)
    value.sum().backward()
    assert labelled.all()
    assert torch.isfinite(value).all()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
