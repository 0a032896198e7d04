"""DeepFM against a network of its layers on all fields side by side, pair by pair."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ckd.stages.batching import training_windows
from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import Domain, side_by_side
from ckd.stages.students.deepfm import network as deepfm
from ckd.stages.students.fm.network import FM
from ckd.storage.corpus import Corpus


def network(corpus: Corpus, layers: tuple[int, ...] = (6, 4, 3), **settings: Any) -> Any:
    torch.manual_seed(0)
    module = STUDENTS.load("deepfm")
    chosen = {"hidden": 5, "min_items": 1, "max_length": 4, "negatives": 3, **settings}
    built = module.build(module.Settings(layers=layers, **chosen), side_by_side([corpus])).double().eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return built


def side_by_side_network(built: Any, contexts: Tensor, items: Tensor) -> Tensor:
    """[N, F, d] and [n, G, d] -> [N, n]: one ordinary perceptron on [history; item]."""
    first = nn.Linear(contexts[0].numel() + items[0].numel(), built.of_history.out_features).double()
    with torch.no_grad():
        first.weight.copy_(torch.cat([built.of_history.weight, built.of_item.weight], 1))
        first.bias.copy_(built.of_history.bias)
    perceptron = nn.Sequential(first, built.behind)
    rows = [[perceptron(torch.cat([c.flatten(), v.flatten()])).squeeze() for v in items] for c in contexts]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize("layers", [(6,), (6, 4), (6, 4, 3)])
def test_scores_are_the_machines_plus_the_networks(shop: Corpus, layers: tuple[int, ...]) -> None:
    built, domain = network(shop, layers), Domain(0, shop)
    codes, ends = torch.tensor([[1, 8, 3], [5, 5, 0]]), torch.arange(3).unsqueeze(0)
    contexts = built.fields.contexts(codes, ends, domain, built.fields.in_history(domain)).flatten(0, 1)
    fields = built.fields.items(domain)
    own = built.fields.own(fields, domain)
    machine = FM.context_vectors(built, contexts) @ FM.item_vectors(built, fields, own).T
    wanted = machine + side_by_side_network(built, contexts, fields)
    vectors, items = built.context_vectors(contexts), built.catalogue(domain)
    torch.testing.assert_close(built.cross(vectors, items), wanted)
    torch.testing.assert_close(built.pairs(vectors, items.expand(6, -1, -1)), wanted)


@pytest.mark.parametrize("pairs_per_block", [1, 17, 40])
def test_blocks_change_neither_scores_nor_gradients(
    shop: Corpus, pairs_per_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outcome() -> list[Tensor]:
        built, domain = network(shop), Domain(0, shop)
        step = built.step(domain, training_windows(shop, 4), np.random.default_rng(0))
        every = torch.arange(shop.n_items)
        scores = [
            step.scores.among(every),
            step.scores.of(every.repeat(len(step.place), 1)),
            step.scores.logsumexp,
        ]
        sum(score.square().sum() for score in scores).backward()
        users = np.arange(shop.n_users, dtype=np.int32)
        served = built.scorer(domain)(users, (shop.lengths - 1).astype(np.int32))
        return [*scores, served, *(parameter.grad for parameter in built.parameters())]

    whole = outcome()
    monkeypatch.setattr(deepfm, "PAIRS_PER_BLOCK", pairs_per_block)
    for in_blocks, at_once in zip(outcome(), whole, strict=True):
        torch.testing.assert_close(in_blocks, at_once)


def test_no_more_pairs_than_a_block_holds_are_in_the_network_at_once(
    shop: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, domain = network(shop), Domain(0, shop)
    seen = []
    built.behind.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[:2].numel()))
    monkeypatch.setattr(deepfm, "PAIRS_PER_BLOCK", 20)
    users = np.arange(shop.n_users, dtype=np.int32)
    scores = built.scorer(domain)(users, (shop.lengths - 1).astype(np.int32))
    assert sum(seen) == scores.numel()
    assert max(seen) <= 20


def test_the_widths_are_those_of_the_settings(shop: Corpus) -> None:
    built = network(shop, (6, 4, 3))
    fields = built.fields
    first = 5 * (fields.of_context + fields.of_item)
    wanted = sum(a * b for a, b in pairwise((first, 6, 4, 3, 1))) + 6 + 4 + 3
    machine = sum(parameter.numel() for parameter in fields.parameters())
    assert sum(parameter.numel() for parameter in built.parameters()) == machine + wanted
