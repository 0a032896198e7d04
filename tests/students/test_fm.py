"""FM against the sum over all pairs of features, one by one, and what of a history its fields hold."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ckd.stages.batching import training_windows
from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import Domain, side_by_side
from ckd.stages.students.item_features import item_features
from ckd.storage.corpus import Corpus

PLACES, DECAY = 2, 0.7
Feature = tuple[float, Tensor, Tensor | float]
"""Value, vector, linear weight."""


def network(*corpora: Corpus, kind: str = "fm", **settings: Any) -> Any:
    """A network in float64 in which no tensor is at its default."""
    torch.manual_seed(0)
    module = STUDENTS.load(kind)
    chosen = {
        "hidden": 5,
        "places": PLACES,
        "decay": DECAY,
        "min_items": 1,
        "max_length": 4,
        "negatives": 3,
        **settings,
    }
    built = module.build(module.Settings(**chosen), side_by_side(corpora)).double().eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return built


def bags(corpora: tuple[Corpus, ...], item: int) -> dict[str, list[int]]:
    """The features of an item by field, from the vocabulary's own words."""
    found = item_features(corpora, 1, 10_000)
    return {name: bag.features[bag.offsets[item] : bag.offsets[item + 1]].tolist() for name, bag in found.items()}


def features_of_item(built: Any, corpora: tuple[Corpus, ...], item: int) -> list[Feature]:
    fields = built.fields
    features: list[Feature] = [(1.0, fields.id.weight[item], fields.linear["id"][item, 0])]
    for name, bag in bags(corpora, item).items():
        features += [(1 / len(bag), fields.item[name][code], fields.linear[name][code, 0]) for code in bag]
    return features


def features_of_history(built: Any, corpora: tuple[Corpus, ...], history: list[int], domain: int) -> list[Feature]:
    """Those of a whole history, oldest first; items as numbered over all domains. Linear weights are not needed."""
    fields = built.fields
    weights = [DECAY ** (len(history) - 1 - place) for place in range(len(history))]
    features: list[Feature] = []
    for item, weight in zip(history, weights, strict=True):
        share = weight / sum(weights)
        features.append((share, fields.history["id"][item], 0.0))
        for name, bag in bags(corpora, item).items():
            features += [(share / len(bag), fields.history[name][code], 0.0) for code in bag]
    features += [(1.0, fields.places[back][item], 0.0) for back, item in enumerate(history[::-1][:PLACES])]
    if len(corpora) > 1:
        features.append((1.0, fields.domain[domain], 0.0))
    return features


def contexts_of(built: Any, codes: Tensor, domain: Domain) -> Tensor:
    """The fields of the history that ends at each item."""
    ends = torch.arange(codes.shape[1]).unsqueeze(0)
    fields: Tensor = built.fields.contexts(codes, ends, domain, built.fields.in_history(domain))
    return fields


def brute_force(context: list[Feature], item: list[Feature]) -> Tensor:
    """The linear terms and all pairs of features, but those within the context."""
    inside = set(map(id, context))
    pairs = [
        one[0] * other[0] * (one[1] @ other[1])
        for one, other in combinations([*context, *item], 2)
        if not (id(one) in inside and id(other) in inside)
    ]
    linear = [torch.as_tensor(value * weight) for value, _, weight in item]
    return torch.stack([*pairs, *linear]).sum()


@pytest.fixture
def corpora(shop: Corpus, make_corpus: Any) -> tuple[Corpus, Corpus]:
    other = make_corpus([[0, 1, 2, 0, 1], [2, 2, 1, 0, 1]], ["red pen", None, "paper"], [None, "Bolt", None])
    return shop, other


@pytest.mark.parametrize("joint", [False, True])
def test_scores_are_the_sum_over_all_pairs_of_features(corpora: tuple[Corpus, Corpus], joint: bool) -> None:
    chosen = corpora if joint else corpora[:1]
    built = network(*chosen)
    for domain in side_by_side(chosen):
        corpus = domain.corpus
        users = np.arange(corpus.n_users, dtype=np.int32)
        position = (corpus.lengths - 1).astype(np.int32)
        scores = built.scorer(domain)(users, position)
        for user in users:
            history = (corpus.sequence_of(user)[: position[user]][-4:] + domain.first).tolist()
            context = features_of_history(built, chosen, history, domain.index)
            wanted = [
                brute_force(context, features_of_item(built, chosen, domain.first + item))
                for item in range(corpus.n_items)
            ]
            torch.testing.assert_close(scores[user], torch.stack(wanted).detach())


@pytest.mark.parametrize("kind", ["fm", "deepfm"])
def test_a_step_scores_each_position_by_the_items_before_it_alone(shop: Corpus, kind: str) -> None:
    built, domain = network(shop, kind=kind), Domain(0, shop)
    windows = training_windows(shop, built.max_length)
    step = built.step(domain, windows, np.random.default_rng(0))
    score, at = built.scorer(domain), shop.positions()
    every = torch.arange(shop.n_items)
    scores = step.scores.among(every)
    starts = {int(user): int(position) for user, position in zip(windows.user, windows.position, strict=True)}
    for row, place in enumerate(step.place.tolist()):
        user, position = int(at.user[place]), int(at.position[place])
        # Positions of a window that was cut see from its first item on.
        seen = shop.sequence_of(user)[starts[user] - 1 : position]
        lone = Corpus("lone", shop.items, shop.user_ids[:1], np.array([0, len(seen)]), seen)
        alone = built.scorer(Domain(0, lone))(np.array([0], np.int32), np.array([len(seen)], np.int32))
        torch.testing.assert_close(scores[row], alone[0])
        if starts[user] == 1:
            known = score(np.array([user], np.int32), np.array([position], np.int32))
            torch.testing.assert_close(scores[row], known[0])


def test_a_later_item_changes_no_earlier_position_and_every_later_one(shop: Corpus) -> None:
    built, domain = network(shop), Domain(0, shop)
    codes = torch.randint(9, (3, 6), generator=torch.Generator().manual_seed(0))
    before = contexts_of(built, codes, domain)
    for place in range(6):
        changed = codes.clone()
        changed[:, place] = (changed[:, place] + 1) % 9
        after = contexts_of(built, changed, domain)
        torch.testing.assert_close(after[:, :place], before[:, :place])
        assert (after[:, place:] - before[:, place:]).abs().amax((2, 3)).min() > 1e-6


def test_a_history_shorter_than_its_places_leaves_them_empty(shop: Corpus) -> None:
    built = network(shop, places=3)
    fields, contexts = built.fields, contexts_of(built, torch.tensor([[4, 7]]), Domain(0, shop))
    history = fields.of_context - 3
    assert torch.equal(contexts[0, 0, history], fields.places[0][4])
    assert not contexts[0, 0, history + 1 :].any()
    assert torch.equal(contexts[0, 1, history : history + 2], torch.stack([fields.places[0][7], fields.places[1][4]]))
    assert not contexts[0, 1, history + 2].any()


def test_a_long_history_keeps_its_decayed_mean_finite(shop: Corpus) -> None:
    built = network(shop, decay=0.01, places=1).float()
    fields = built.fields
    codes = torch.randint(9, (1, 500))
    contexts = contexts_of(built, codes, Domain(0, shop))
    assert torch.isfinite(contexts).all()
    torch.testing.assert_close(contexts[0, 1:, 0], fields.history["id"][codes[0, 1:]], atol=0.1, rtol=0.1)


def test_items_of_which_nothing_is_known_and_a_domain_without_any_text_are_scored(make_corpus: Any) -> None:
    corpus = make_corpus([[0, 1, 2, 0, 1]] * 3, [None, None, None])
    built = network(corpus)
    scores = built.scorer(Domain(0, corpus))(np.arange(3, dtype=np.int32), np.full(3, 4, np.int32))
    assert torch.isfinite(scores).all()
    assert built.fields.of_item == 1


def test_built_again_from_the_same_corpora_the_weights_mean_the_same(corpora: tuple[Corpus, Corpus]) -> None:
    built = network(*corpora)
    module = STUDENTS.load("fm")
    settings = module.Settings(hidden=5, places=PLACES, decay=DECAY, min_items=1, max_length=4)
    again = module.build(settings, side_by_side(corpora)).double()
    again.load_state_dict(built.state_dict())
    for domain in side_by_side(corpora):
        users = np.arange(domain.corpus.n_users, dtype=np.int32)
        position = (domain.corpus.lengths - 1).astype(np.int32)
        assert torch.equal(again.scorer(domain)(users, position), built.scorer(domain)(users, position))


def test_words_teach_across_domains_and_items_do_not(corpora: tuple[Corpus, Corpus]) -> None:
    shop, other = side_by_side(corpora)
    built = network(*corpora, negatives=100)
    step = built.step(shop, training_windows(shop.corpus, 4), np.random.default_rng(0))
    step.scores.logsumexp.sum().backward()
    fields = built.fields
    red = bags(corpora, 0)["title"]
    assert any(fields.item["title"].grad[code].any() for code in red)
    assert set(red) == set(bags(corpora, other.first)["title"])
    assert not fields.id.weight.grad[other.items].any()
    assert not fields.history["id"].grad[other.items].any()
    assert not fields.domain.grad[other.index].any() and fields.domain.grad[shop.index].any()
