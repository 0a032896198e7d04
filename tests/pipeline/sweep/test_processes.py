"""How many processes a sweep starts, unless told."""

import pytest
import torch

from ckd.pipeline.cluster import cores
from ckd.pipeline.sweep.sweep import suitable_processes


@pytest.mark.parametrize(("device", "there", "expected"), [("auto", 3, 3), ("cuda", 1, 1), ("cpu", 3, cores())])
def test_each_gpu_has_one(monkeypatch: pytest.MonkeyPatch, device: str, there: int, expected: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    assert suitable_processes(device, 1) == expected


def test_without_one_each_has_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert suitable_processes("auto", 1) == cores()
    assert suitable_processes("auto", 10 * cores()) == 1
