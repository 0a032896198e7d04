"""What freed tensors leave behind: counted in page faults, in processes of their own."""

import os
import platform
import subprocess
import sys

import pytest

STEPS = 50
CHURN = f"""
import resource, sys, torch
from ckd.pipeline.device import chosen_device

if "kept" in sys.argv:
    assert chosen_device("cpu").type == "cpu"

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step(rows):
    return torch.ones(rows, 1_000).softmax(1).sum()

step(1_000)
before = faults()
for number in range({STEPS}):
    step(500 + 10 * number)
print((faults() - before) // {STEPS})
"""


def faults(*arguments: str) -> int:
    worker = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}  # as Dask starts its workers
    command = [sys.executable, "-c", CHURN, *arguments]
    done = subprocess.run(command, env=worker, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is asked to keep what is freed")
def test_the_memory_of_one_step_serves_the_next_in_a_worker_of_dask() -> None:
    assert faults("kept") < 100 < 1_000 < faults()


HELD = """
import torch
from pathlib import Path
from ckd.pipeline.device import chosen_device
from ckd.pipeline.memory import freed_after

def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

chosen_device("cpu")
torch.ones(1)
before = megabytes()
parts = [torch.ones(1 << 20) for _ in range(100)]
last = parts[-1]  # what stands behind the free memory keeps its end where it is
del parts
kept, seen = megabytes() - before, []
freed_after(seen.append)({"epoch": 1})
assert seen == [{"epoch": 1}]
print(kept, megabytes() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is asked to give back what is freed")
def test_after_an_epoch_the_memory_that_no_tensor_takes_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    kept, left = map(int, done.stdout.split())
    assert left < 100 < 300 < kept
