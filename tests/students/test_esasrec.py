"""What is eSASRec's own: gated layers, against the formulas of LiGR (arXiv 2502.03417) written out place by place."""

import math

import torch
from torch.nn import functional as F

from ckd.stages.students.esasrec import Settings
from ckd.stages.students.esasrec.network import ESASRec
from ckd.stages.students.sasrec import Sizes
from ckd.stages.students.sasrec.network import SASRec

N_ITEMS, D, HEADS = 11, 8, 2


def test_it_is_what_the_formulas_say() -> None:
    torch.manual_seed(0)
    network = ESASRec(Settings(hidden=D, blocks=1, heads=HEADS, max_length=6), N_ITEMS).eval().double()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.add_(0.3 * torch.randn_like(tensor))
    w = network.state_dict()
    history = torch.tensor([3, 7, 7, 0, 10])
    x = w["items.weight"][history] + w["positions.weight"][: len(history)]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (D,), w[f"{name}.weight"], w[f"{name}.bias"])

    def gate(x: torch.Tensor, number: int) -> torch.Tensor:
        return 1 / (1 + torch.exp(-(x @ w[f"blocks.{number}.gate.weight"].T + w[f"blocks.{number}.gate.bias"])))

    projected = norm(x, "blocks.0.norm") @ w["blocks.0.layer.project_in.weight"].T + w["blocks.0.layer.project_in.bias"]
    mixed = torch.zeros_like(x)
    for head in range(HEADS):
        width = D // HEADS
        q, k, v = (projected[:, at + head * width :][:, :width] for at in (0, D, 2 * D))
        for place in range(len(history)):
            weights = torch.softmax(q[place] @ k[: place + 1].T / math.sqrt(width), 0)
            mixed[place, head * width : (head + 1) * width] = weights @ v[: place + 1]
    attended = mixed @ w["blocks.0.layer.project_out.weight"].T + w["blocks.0.layer.project_out.bias"]
    x = x + gate(x, 0) * attended
    first, second = (norm(x, "blocks.1.norm") @ w["blocks.1.layer.widen.weight"].T).chunk(2, 1)
    x = x + gate(x, 1) * ((first / (1 + torch.exp(-first)) * second) @ w["blocks.1.layer.narrow.weight"].T)
    torch.testing.assert_close(network.encode(history[None])[0], norm(x, "norm"))


def test_its_layers_are_as_large_as_sasrecs_but_for_the_gates() -> None:
    d = 48
    sizes = {"hidden": d, "blocks": 3, "heads": 2, "max_length": 10}
    ours = sum(p.numel() for p in ESASRec(Settings(**sizes), N_ITEMS).parameters())
    theirs = sum(p.numel() for p in SASRec(Sizes(**sizes), N_ITEMS).parameters())
    gates, biases_of_the_feed_forward_layer = 2 * (d * d + d), 5 * d
    assert ours - theirs == 3 * (gates - biases_of_the_feed_forward_layer)
