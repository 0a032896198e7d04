"""What is BERT4Rec's own: nothing that is hidden shows, all else does, and which history ends an epoch teaches."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ckd.stages.batching import padded, real_positions, training_windows
from ckd.stages.students.bert4rec import Settings
from ckd.stages.students.bert4rec.network import BERT4Rec, drawn_ends
from ckd.stages.students.contract import Domain

N_ITEMS = 17


def network(**settings: Any) -> BERT4Rec:
    torch.manual_seed(0)
    sizes = {"hidden": 16, "blocks": 2, "heads": 2, "max_length": 8, "dropout": 0.0, **settings}
    network = BERT4Rec(Settings(**sizes), N_ITEMS).eval()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.add_(0.2 * torch.randn_like(tensor))
    return network


@pytest.fixture
def items() -> torch.Tensor:
    return torch.randint(N_ITEMS, (3, 6), generator=torch.Generator().manual_seed(1))


ENDS = torch.tensor([5, 3, 0])


def changed(items: torch.Tensor, row: int, place: int) -> torch.Tensor:
    other = items.clone()
    other[row, place] = (other[row, place] + 1) % N_ITEMS
    return other


def test_every_answer_sees_all_of_its_history_and_nothing_behind_it(items: torch.Tensor) -> None:
    bert = network()
    before = bert.encode(items, ENDS)
    assert before.shape == (3, 7, 17)
    for row, end in enumerate(ENDS.tolist()):
        for place in range(items.shape[1]):
            moved = (bert.encode(changed(items, row, place), ENDS)[row, : end + 2] - before[row, : end + 2]).abs()
            if place <= end:
                assert moved.amax(1).min() > 1e-5
            else:
                assert not moved.any()


def test_a_masked_item_shows_nowhere(items: torch.Tensor) -> None:
    bert = network()
    hidden = torch.zeros_like(items, dtype=torch.bool)
    hidden[0, [1, 4]], hidden[1, 2] = True, True
    before = bert.encode(items, ENDS, hidden)
    assert not torch.equal(before[0, 6], bert.encode(items, ENDS)[0, 6])
    for row, place in hidden.nonzero().tolist():
        assert torch.equal(bert.encode(changed(items, row, place), ENDS, hidden), before)
    assert not torch.equal(bert.encode(changed(items, 0, 2), ENDS, hidden)[0], before[0])


def test_padding_and_neighbours_change_nothing(items: torch.Tensor) -> None:
    bert = network()
    together = bert.query(items, ENDS)
    for row, end in enumerate(ENDS.tolist()):
        alone = bert.query(items[row : row + 1, : end + 1], ENDS[row : row + 1])
        torch.testing.assert_close(alone[0], together[row])


def test_the_bias_of_an_item_is_added_to_its_score(items: torch.Tensor) -> None:
    bert = network()
    before = bert.query(items, ENDS) @ bert.item_vectors().T
    with torch.no_grad():
        bert.bias[4] += 2.5
    after = bert.query(items, ENDS) @ bert.item_vectors().T
    wanted = torch.zeros(N_ITEMS)
    wanted[4] = 2.5
    torch.testing.assert_close(after - before, wanted.expand(3, -1))


def test_the_mask_stands_behind_as_many_items_as_its_maximum() -> None:
    bert = network(max_length=4)
    full = torch.zeros(1, 4, dtype=torch.int64)
    assert bert.query(full, torch.tensor([3])).shape == (1, 17)
    with pytest.raises(IndexError):
        bert.query(torch.zeros(1, 5, dtype=torch.int64), torch.tensor([4]))


def test_an_epoch_teaches_as_many_distinct_ends_of_each_sequence_as_asked_or_all_it_has() -> None:
    length = np.array([1, 3, 9, 4])
    row, end = drawn_ends(length, 4, np.random.default_rng(0))
    assert np.bincount(row).tolist() == [1, 3, 4, 4]
    assert (end < length[row]).all() and (end >= 0).all()
    assert len(set(zip(row.tolist(), end.tolist(), strict=True))) == len(row)


def test_every_end_of_a_sequence_has_the_same_chance() -> None:
    draw, length = np.random.default_rng(0), np.full(6_000, 6)
    row, end = drawn_ends(length, 2, draw)
    assert len(row) == 12_000
    np.testing.assert_allclose(np.bincount(end) / 2_000, 1, atol=0.1)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_masked_items_are_losses_of_its_own_on_what_they_were(make_world: Any, share: float) -> None:
    """Where items depend on nothing, an untrained network is as wrong about each as about any other."""
    draw = np.random.default_rng(0)
    corpus = make_world(draw.integers(0, N_ITEMS, (50, 9)).tolist(), N_ITEMS).corpus
    bert = network(mask_share=share, ends=3).train()
    windows = training_windows(corpus, bert.max_length)
    step = bert.step(Domain(0, corpus), windows, np.random.default_rng(1))
    assert len(step.place) == 150
    seen = corpus.positions().position[step.place.numpy()]
    assert step.own is not None
    assert len(step.own) / seen.sum() == pytest.approx(share, abs=0.05)
    if share:
        with torch.no_grad():
            bert.bias.copy_(torch.where(torch.arange(N_ITEMS) == 3, 50.0, 0.0))
        sure = bert.step(Domain(0, corpus), windows, np.random.default_rng(1)).own
        # All but the items 3 themselves are now told far too confidently.
        assert sure is not None
        assert float((sure < 1).float().mean()) == pytest.approx(1 / N_ITEMS, abs=0.05)
    bert.eval()
    quiet = bert.step(Domain(0, corpus), windows, np.random.default_rng(1))
    assert quiet.own is not None and not len(quiet.own)


def test_masked_items_are_found_where_each_history_read_alone_has_them(make_world: Any) -> None:
    """The histories of a step are read in groups of like length; what was masked stays with its history."""
    draw = np.random.default_rng(0)
    sequences = [draw.integers(0, N_ITEMS, size).tolist() for size in draw.integers(4, 12, 60)]
    corpus = make_world(sequences, N_ITEMS).corpus
    bert = network(mask_share=0.4, ends=3, dropout=0.0).train()
    windows = training_windows(corpus, bert.max_length)
    step = bert.step(Domain(0, corpus), windows, np.random.default_rng(1))

    again = np.random.default_rng(1)
    row, end = drawn_ends(windows.length, 3, again)
    codes, real = padded(corpus.sequence, windows.start[row], end + 1), real_positions(end + 1)
    masked = real & (again.random(real.shape) < 0.4)
    alone = []
    for items, last, hidden in zip(codes, end, torch.from_numpy(masked), strict=True):
        own, hidden = items[: last + 1], hidden[: last + 1]
        states = bert.encode(own[None], torch.tensor([last]), hidden[None])[0, :-1]
        alone.append(F.cross_entropy(states[hidden] @ bert.item_vectors().T, own[hidden], reduction="none"))
    assert step.own is not None
    torch.testing.assert_close(step.own.sort().values, torch.cat(alone).sort().values)
