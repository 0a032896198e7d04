"""What a process of a sweep does: it trains one run at a time."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from distributed import get_worker

from ckd.pipeline.device import chosen_device
from ckd.pipeline.progress import console
from ckd.pipeline.sweep.runs import Job, trained
from ckd.storage.errors import Busy, UserError
from ckd.storage.trust import Signature, trust

_one_at_a_time = threading.Lock()
"""Torch has one random generator per process, which two trainings at once would disturb."""


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Attributes:
        seconds: that it took.
        error: what the user can mend, or None.
        busy: who trains it instead, in words, or None.
    """

    seconds: float
    error: UserError | OSError | None = None
    busy: str | None = None


def train(job: Job, signatures: Mapping[Path, Signature], threads: int) -> Outcome:
    """Train a run, or find out that another process does.

    Args:
        job: the run.
        signatures: of the files that need not be compared with their digests again.
        threads: that torch may use.
    """
    console.quiet = True  # a line per epoch of each of many runs would say nothing
    started = time.perf_counter()
    with _one_at_a_time:
        torch.set_num_threads(threads)
        trust(signatures)
        try:
            _refuse_another_store(job)
            trained(job, _device(job))
        except Busy as busy:
            return Outcome(0.0, busy=str(busy))
        except (UserError, OSError) as error:
            return Outcome(time.perf_counter() - started, error)
    return Outcome(time.perf_counter() - started)


def _refuse_another_store(job: Job) -> None:
    """Refuse to train where the corpora are not seen: they would be made anew, in a store of this machine."""
    store = job.plan.store
    for domain in job.run.domains:
        if store.find(job.plan.corpus(domain)) is None:
            raise UserError(
                f"{get_worker().address} does not see the corpus of {domain} in {store.root}: "
                "let the workers of the cluster mount the store at the same path"
            )


def _device(job: Job) -> torch.device:
    """Return the device of a worker: of several GPUs, each worker of this machine has its own as far as they go."""
    device = chosen_device(job.plan.configuration.device)
    number = get_worker().name
    if device.type != "cuda" or not isinstance(number, int):
        return device
    return torch.device("cuda", number % torch.cuda.device_count())
