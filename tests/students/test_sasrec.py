"""What every student must do, run on each of them, and what is SASRec's own."""

from abc import ABC, abstractmethod
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from ckd.stages.students import STUDENTS

N_ITEMS = 23


class StudentContract(ABC):
    """One suite for all students (benfred/implicit's ``RecommenderBaseTestMixin``)."""

    @abstractmethod
    def network(self, **settings: Any) -> Any:
        """A freshly initialised network over ``N_ITEMS``, in evaluation mode."""

    @pytest.fixture
    def items(self) -> torch.Tensor:
        return torch.randint(N_ITEMS, (4, 6), generator=torch.Generator().manual_seed(1))

    def test_one_vector_per_position_and_one_per_item_of_one_width(self, items: torch.Tensor) -> None:
        network = self.network()
        encoded, vectors = network.encode(items), network.item_vectors()
        assert encoded.shape == (*items.shape, vectors.shape[1])
        assert len(vectors) == N_ITEMS
        assert encoded.dtype == vectors.dtype == torch.float32
        assert torch.isfinite(encoded).all()

    def test_a_later_item_does_not_change_an_earlier_vector(self, items: torch.Tensor) -> None:
        network = self.network()
        before = network.encode(items)
        for place in range(items.shape[1]):
            changed = items.clone()
            changed[:, place] = (changed[:, place] + 1) % N_ITEMS
            after = network.encode(changed)
            torch.testing.assert_close(after[:, :place], before[:, :place])
            for later in range(place, items.shape[1]):
                assert (after[:, later] - before[:, later]).abs().amax(1).min() > 1e-6

    def test_padding_changes_nothing_whatever_it_holds(self, items: torch.Tensor) -> None:
        network = self.network()
        short = network.encode(items[:, :3])
        for filling in (0, 5, N_ITEMS - 1):
            padded = items.clone()
            padded[:, 3:] = filling
            torch.testing.assert_close(network.encode(padded)[:, :3], short)

    def test_who_shares_a_batch_changes_nothing(self, items: torch.Tensor) -> None:
        network = self.network()
        whole = network.encode(items)
        for row in range(len(items)):
            torch.testing.assert_close(network.encode(items[row : row + 1])[0], whole[row])

    def test_the_order_of_a_history_matters(self, items: torch.Tensor) -> None:
        network = self.network()
        swapped = items[:, [1, 0, 2, 3, 4, 5]]
        different = items[:, 0] != items[:, 1]
        distance = (network.encode(swapped)[:, -1] - network.encode(items)[:, -1]).abs().amax(1)
        assert different.any()
        assert (distance[different] > 1e-6).all()

    def test_as_many_items_as_its_maximum_are_seen(self) -> None:
        network = self.network(max_length=4)
        assert network.max_length == 4
        assert network.encode(torch.zeros(2, 4, dtype=torch.int64)).shape[1] == 4
        with pytest.raises(RuntimeError):
            network.encode(torch.zeros(2, 5, dtype=torch.int64))

    def test_the_gradient_reaches_every_parameter(self) -> None:
        network = self.network(max_length=6).train()
        items = torch.randint(N_ITEMS, (16, 6), generator=torch.Generator().manual_seed(2))
        logits = network.encode(items) @ network.item_vectors().T
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), items.flatten()).backward()
        untouched = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert untouched == []

    def test_the_seed_alone_determines_the_initial_weights(self) -> None:
        first, again, other = (self._seeded(seed) for seed in (3, 3, 4))
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)

    def test_evaluation_is_deterministic_and_training_is_not(self, items: torch.Tensor) -> None:
        network = self.network(dropout=0.5)
        assert torch.equal(network.encode(items), network.encode(items))
        network.train()
        assert not torch.equal(network.encode(items), network.encode(items))

    def _seeded(self, seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        state: dict[str, torch.Tensor] = self.network().state_dict()
        return state


class TestSASRec(StudentContract):
    def network(self, **settings: Any) -> Any:
        kind = STUDENTS.load("sasrec")
        sizes = {"hidden": 16, "blocks": 2, "heads": 2, "max_length": 10, **settings}
        return kind.build(kind.Settings(**sizes), N_ITEMS).eval()

    @pytest.mark.parametrize("heads", [1, 4, 16])
    def test_heads_change_the_answer_and_not_the_number_of_parameters(self, heads: int, items: torch.Tensor) -> None:
        torch.manual_seed(0)
        two = self.network()
        torch.manual_seed(0)
        other = self.network(heads=heads)
        assert {n: t.shape for n, t in other.state_dict().items()} == {n: t.shape for n, t in two.state_dict().items()}
        assert not torch.allclose(two.encode(items), other.encode(items))

    def test_it_has_the_parameters_of_the_paper_with_its_wider_feed_forward_layer(self) -> None:
        d, blocks, length = 16, 2, 10
        attention, feed_forward, norms = 4 * d * d + 4 * d, 2 * 4 * d * d + 5 * d, 4 * d
        wanted = (N_ITEMS + length) * d + 2 * d + blocks * (attention + feed_forward + norms)
        assert sum(p.numel() for p in self.network().parameters()) == wanted

    def test_heads_must_divide_the_width(self) -> None:
        with pytest.raises(ValidationError, match=r"hidden \(10\) must be a multiple of heads \(3\)"):
            STUDENTS.load("sasrec").Settings(hidden=10, heads=3)
