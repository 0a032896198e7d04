"""Students that read a sequence once: the vector at each place is of the history up to it."""

from typing import Any

import pytest
import torch

from ckd.stages.students import STUDENTS, esasrec, gru4rec, sasrec
from ckd.stages.students.esasrec.network import ESASRec
from ckd.stages.students.gru4rec.network import GRU4Rec
from ckd.stages.students.sasrec.network import SASRec

N_ITEMS = 23
NETWORKS = {
    "sasrec": lambda **sizes: SASRec(sasrec.Sizes(hidden=16, **sizes), N_ITEMS),
    "esasrec": lambda **sizes: ESASRec(esasrec.Settings(hidden=16, **sizes), N_ITEMS),
    "gru4rec": lambda **sizes: GRU4Rec(gru4rec.Settings(hidden=16, **sizes), N_ITEMS),
    "gru4rec of two layers": lambda **sizes: GRU4Rec(gru4rec.Settings(hidden=16, layers=2, **sizes), N_ITEMS),
    "gru4rec, not tied": lambda **sizes: GRU4Rec(gru4rec.Settings(hidden=16, tied=False, **sizes), N_ITEMS),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    network = NETWORKS[request.param](max_length=10, dropout=0.5).eval()
    with torch.no_grad():
        # Fresh weights are so small that what they change would be lost in rounding.
        for tensor in network.parameters():
            tensor.add_(0.2 * torch.randn_like(tensor))
    return network


@pytest.fixture
def items() -> torch.Tensor:
    return torch.randint(N_ITEMS, (4, 6), generator=torch.Generator().manual_seed(1))


def test_one_vector_per_position_and_one_per_item_of_one_width(network: Any, items: torch.Tensor) -> None:
    encoded, vectors = network.encode(items), network.item_vectors()
    assert encoded.shape == (*items.shape, vectors.shape[1])
    assert len(vectors) == N_ITEMS
    assert encoded.dtype == vectors.dtype == torch.float32
    assert torch.isfinite(encoded).all()


def test_a_later_item_does_not_change_an_earlier_vector(network: Any, items: torch.Tensor) -> None:
    before = network.encode(items)
    for place in range(items.shape[1]):
        changed = items.clone()
        changed[:, place] = (changed[:, place] + 1) % N_ITEMS
        after = network.encode(changed)
        torch.testing.assert_close(after[:, :place], before[:, :place])
        for later in range(place, items.shape[1]):
            assert (after[:, later] - before[:, later]).abs().amax(1).min() > 1e-5


def test_padding_changes_nothing_whatever_it_holds(network: Any, items: torch.Tensor) -> None:
    short = network.encode(items[:, :3])
    for filling in (0, 5, N_ITEMS - 1):
        padded = items.clone()
        padded[:, 3:] = filling
        torch.testing.assert_close(network.encode(padded)[:, :3], short)


def test_a_query_is_the_vector_at_the_last_item(network: Any, items: torch.Tensor) -> None:
    ends = torch.tensor([0, 5, 2, 4])
    wanted = torch.stack([network.encode(items[row : row + 1, : end + 1])[0, -1] for row, end in enumerate(ends)])
    torch.testing.assert_close(network.query(items, ends), wanted)


def test_the_order_of_a_history_matters(network: Any, items: torch.Tensor) -> None:
    swapped = items[:, [1, 0, 2, 3, 4, 5]]
    different = items[:, 0] != items[:, 1]
    distance = (network.encode(swapped)[:, -1] - network.encode(items)[:, -1]).abs().amax(1)
    assert different.any()
    assert (distance[different] > 1e-5).all()


def test_evaluation_is_deterministic_and_training_is_not(network: Any, items: torch.Tensor) -> None:
    assert torch.equal(network.encode(items), network.encode(items))
    network.train()
    assert not torch.equal(network.encode(items), network.encode(items))


@pytest.mark.parametrize("kind", ["sasrec", "esasrec", "bert4rec"])
def test_heads_must_divide_the_width(kind: str) -> None:
    with pytest.raises(ValueError, match=r"hidden \(10\) must be a multiple of heads \(3\)"):
        STUDENTS.load(kind).Settings(hidden=10, heads=3)
