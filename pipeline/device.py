"""Where networks run."""

import os

import torch

from ckd.pipeline.memory import keep_freed_memory
from ckd.storage.errors import UserError


def gpus(name: str) -> int:
    """Return how many GPUs a configuration may use."""
    return torch.cuda.device_count() if name != "cpu" and torch.cuda.is_available() else 0


def chosen_device(name: str) -> torch.device:
    """Return the device that a configuration asks for; the processor's memory is made ready for networks.

    Raises:
        UserError: it asks for a GPU and there is none, or torchrun started more processes than there are GPUs.
    """
    there = gpus(name)
    if name == "cuda" and not there:
        raise UserError("device: cuda is asked for, but torch sees no GPU here; set device to auto or cpu")
    if not there:
        keep_freed_memory()
        return torch.device("cpu")
    # torchrun starts one process per GPU.
    processes, number = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    if processes > there:
        raise UserError(
            f"torchrun started {processes} processes, one per GPU, but torch sees {there}; use --nproc-per-node {there}"
        )
    return torch.device("cuda", number)
