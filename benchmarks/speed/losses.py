"""What the losses of one training step cost: put together by autograd, and in closed form by blocks of several sizes.

    python benchmarks/speed/losses.py

Forward and backward down to states and item vectors, on tensors of the size of a step of `speed.py`: 9,300 positions,
3,416 items of which 2,066 are targets, width 64, one teacher with k items and states of 64 at each position. All ways
in turn, the least and the median milliseconds of several rounds.
"""

import argparse
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from turns import CLOCKS

from ckd.stages.distill.fused import Best, Voice, fused_losses
from ckd.stages.distill.losses import in_batch, top_k

POSITIONS, ITEMS, TARGETS, WIDTH = 9_300, 3_416, 2_066, 64
Losses = tuple[str, ...]
TAUGHT: tuple[Losses, ...] = ((), ("top_k",), ("in_batch",), ("in_batch", "top_k"))
ROWS = (64, 128, 256, 512, 1_024, 2_048, POSITIONS)


class Step:
    """What a step has to go on."""

    def __init__(self, k: int) -> None:
        torch.manual_seed(0)
        self.states = (0.3 * torch.randn(POSITIONS, WIDTH)).requires_grad_()
        self.items = (0.3 * torch.randn(ITEMS, WIDTH)).requires_grad_()
        self.target = torch.cat([torch.arange(TARGETS), torch.randint(TARGETS, (POSITIONS - TARGETS,))])
        self.weight = torch.rand(POSITIONS)
        self.state, self.vectors = 0.25 * torch.randn(POSITIONS, WIDTH), torch.randn(ITEMS, WIDTH)
        logprobs = (self.state @ self.vectors.T).log_softmax(1)
        kept, items = logprobs.topk(k, dim=1)
        self.best = Best(items, kept, kept.exp().sum(1))

    def fused(self, rows: int, losses: Losses) -> Tensor:
        """Return the loss in closed form, by blocks of some rows."""
        distinct = torch.unique(self.target)
        vectors = self.vectors[distinct].T
        voice = Voice(
            self.weight if "top_k" in losses else None,
            self.weight if "in_batch" in losses else None,
            best=lambda here: Best(*(part[here] for part in self.best)),
            among=lambda here: self.state[here] @ vectors,
        )
        voices = [voice] if losses else []
        return fused_losses(self.states, self.items, self.target, distinct, self.weight, voices, 1.0, rows).total

    def composed(self, taught: Losses) -> Tensor:
        """Return the same loss put together."""
        logits = self.states @ self.items.T
        logsumexp = logits.logsumexp(1)
        losses = logsumexp - logits.gather(1, self.target.unsqueeze(1)).squeeze(1)
        if "top_k" in taught:
            chosen = logits.gather(1, self.best.items)
            losses = losses + top_k(chosen, logsumexp, self.best.logprobs, self.best.kept_mass, 1.0)
        if "in_batch" in taught:
            distinct = torch.unique(self.target)
            losses = losses + in_batch(logits[:, distinct], self.state @ self.vectors[distinct].T, 1.0)
        return (self.weight * losses).sum()


def main() -> None:
    """Take turns, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--items", type=int, default=100, help="k")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu on a machine at work, with --threads 1")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    step, now = Step(chosen.items), CLOCKS[chosen.clock]
    ways: dict[str, Callable[[Losses], Tensor]] = {"put together": step.composed}
    ways |= {f"blocks of {rows}": lambda losses, rows=rows: step.fused(rows, losses) for rows in ROWS}
    found: dict[tuple[str, Losses], list[float]] = {(way, losses): [] for way in ways for losses in TAUGHT}
    for _ in range(chosen.rounds):
        for (way, losses), seconds in found.items():
            began = now()
            torch.autograd.grad(ways[way](losses), (step.states, step.items))
            seconds.append(now() - began)
    print(f"| ms | {' | '.join(' and '.join(losses) or 'plain' for losses in TAUGHT)} |")
    print(f"|---|{'---:|' * len(TAUGHT)}")
    for way in ways:
        shown = [f"{1e3 * min(s):,.0f} ({1e3 * median(s):,.0f})" for s in (found[way, losses] for losses in TAUGHT)]
        print(f"| {way} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
