"""What is GRU4Rec's own: the recurrence, and whether the vectors that are read are those that score."""

from typing import Any

import pytest
import torch

from ckd.stages.students.gru4rec import Settings
from ckd.stages.students.gru4rec.network import GRU4Rec

N_ITEMS, D = 11, 8


def network(**settings: Any) -> GRU4Rec:
    torch.manual_seed(0)
    return GRU4Rec(Settings(hidden=D, **settings), N_ITEMS).eval()


@pytest.mark.parametrize("tied", [True, False])
def test_a_history_is_the_state_of_the_recurrence_behind_its_last_item(tied: bool) -> None:
    """Cho et al. 2014 (arXiv 1406.1078), in the form that forgets inside the candidate's recurrent term."""
    gru = network(tied=tied)
    weights = gru.state_dict()
    history = [3, 7, 7, 0, 10]
    state = torch.zeros(D)
    for item in history:
        vector = torch.nn.functional.layer_norm(weights["items.weight"][item], (D,))
        read = weights["recurrent.weight_ih_l0"] @ vector + weights["recurrent.bias_ih_l0"]
        kept = weights["recurrent.weight_hh_l0"] @ state + weights["recurrent.bias_hh_l0"]
        reset, update = ((read[at : at + D] + kept[at : at + D]).sigmoid() for at in (0, D))
        candidate = torch.tanh(read[2 * D :] + reset * kept[2 * D :])
        state = (1 - update) * candidate + update * state
    wanted = weights["project.weight"] @ state + weights["project.bias"]
    torch.testing.assert_close(gru.encode(torch.tensor([history]))[0, -1], wanted)


def test_tied_vectors_are_read_and_score_and_others_only_score() -> None:
    tied, apart = network(), network(tied=False)
    assert tied.item_vectors() is tied.items.weight
    assert apart.item_vectors() is not apart.items.weight
    counts = [sum(p.numel() for p in gru.parameters()) for gru in (tied, apart)]
    assert counts[1] - counts[0] == N_ITEMS * D
