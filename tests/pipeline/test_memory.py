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
