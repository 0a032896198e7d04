"""What is SASRec's own."""

from typing import Any

import pytest
import torch

from ckd.stages.students.sasrec import Sizes
from ckd.stages.students.sasrec.network import SASRec

N_ITEMS = 23


def network(**settings: Any) -> SASRec:
    torch.manual_seed(0)
    return SASRec(Sizes(**{"hidden": 16, "blocks": 2, "heads": 2, "max_length": 10, **settings}), N_ITEMS).eval()


@pytest.mark.parametrize("heads", [1, 4, 16])
def test_heads_change_the_answer_and_not_the_number_of_parameters(heads: int) -> None:
    items = torch.randint(N_ITEMS, (4, 6), generator=torch.Generator().manual_seed(1))
    two, other = network(), network(heads=heads)
    assert {n: t.shape for n, t in other.state_dict().items()} == {n: t.shape for n, t in two.state_dict().items()}
    assert not torch.allclose(two.encode(items), other.encode(items))


def test_it_has_the_parameters_of_the_paper_with_its_wider_feed_forward_layer() -> None:
    d, blocks, length = 16, 2, 10
    attention, feed_forward, norms = 4 * d * d + 4 * d, 2 * 4 * d * d + 5 * d, 4 * d
    wanted = (N_ITEMS + length) * d + 2 * d + blocks * (attention + feed_forward + norms)
    assert sum(p.numel() for p in network().parameters()) == wanted


def test_more_items_than_its_maximum_are_refused() -> None:
    four = network(max_length=4)
    assert four.encode(torch.zeros(2, 4, dtype=torch.int64)).shape[1] == 4
    with pytest.raises(RuntimeError):
        four.encode(torch.zeros(2, 5, dtype=torch.int64))
