"""On what labels are computed: elsewhere, the last bits of the same teacher's scores may be others."""

import platform

import torch

MADE_ON = "made_on"
"""Fact of a shard: :func:`made_on` of the machine that computed it."""


def made_on(device: torch.device) -> str:
    """Return what determines the last bits of scores beside their inputs: library, processor and its instructions."""
    processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return f"torch {torch.__version__}, {processor}, {where}"
