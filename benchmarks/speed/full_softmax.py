"""What the cross-entropy over a whole catalogue costs, put together by autograd and by blocks: time and memory.

    python benchmarks/speed/full_softmax.py

Forward and backward down to states and item vectors at the size of a step of UniSRec's adaptation to a domain of 12,000
items; the number of positions changes from step to step, as it does with random batches. Each way in a process of its
own, with the memory settings of ckd's trainings: median milliseconds of a step, and what the process grew by at most.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from ckd.pipeline.memory import keep_freed_memory
from ckd.stages.full_softmax import full_softmax_loss


def put_together(states: Tensor, items: Tensor, target: Tensor) -> Tensor:
    """Return the loss with all scores at once."""
    return F.cross_entropy(states @ items.T, target)


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "put together": put_together,
    "by blocks": full_softmax_loss,
}


def measure(way: str, chosen: argparse.Namespace) -> tuple[float, float]:
    """Return the median milliseconds of a step and the MB that the process grew by."""
    keep_freed_memory()
    torch.set_num_threads(chosen.threads)
    draw = torch.Generator().manual_seed(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    items = torch.randn(chosen.items, chosen.width, generator=draw, requires_grad=True)
    took = []
    for _ in range(chosen.steps):
        n = int(chosen.positions * (0.9 + 0.2 * torch.rand((), generator=draw)))
        states = (0.3 * torch.randn(n, chosen.width, generator=draw)).requires_grad_()
        target = torch.randint(chosen.items, (n,), generator=draw)
        began = time.perf_counter()
        torch.autograd.grad(WAYS[way](states, items, target), (states, items))
        took.append(time.perf_counter() - began)
    return 1e3 * median(took), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """Measure both, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"positions": 3_400, "items": 12_000, "width": 128, "threads": 2, "steps": 9}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    chosen = parser.parse_args()
    print("| | ms | MB |\n|---|---:|---:|")
    for way in WAYS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            milliseconds, grown = pool.apply(measure, (way, chosen))
        print(f"| {way} | {milliseconds:,.0f} | {grown:,.0f} |")


if __name__ == "__main__":
    main()
