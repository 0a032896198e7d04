"""The golden files of the teachers' authors, and files of the same form that tests write themselves."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.stages.teachers.unisrec.recbole import RecBoleCheckpoint, read_recbole

AUTHORS = Path(os.environ.get("CKD_FIXTURES") or Path(__file__).parent.parent / "fixtures").absolute()
"""Folder with ``unisrec/`` and ``recformer/``, written by the authors' code."""
NAMES = {"inductive_ft": "inductive", "transductive_ft": "transductive", "pretrain": "pretrained_inductive"}
"""Training stage of a checkpoint to the name under which the authors' outputs of it are kept."""


@dataclass(frozen=True)
class Golden:
    """One checkpoint of the authors, opened.

    Attributes:
        checkpoint: what was read.
        model: ckd's network with its weights.
        text: float32 [n, p], text vectors of its items.
        folder: where the authors' outputs are.
    """

    checkpoint: RecBoleCheckpoint
    model: UniSRec
    text: torch.Tensor
    folder: Path

    @property
    def name(self) -> str:
        """Which of the authors' outputs are of this checkpoint."""
        return NAMES[self.checkpoint.stage]

    def array(self, output: str) -> np.ndarray:
        """The authors' output of this checkpoint."""
        suffix = "" if self.name == "inductive" else f"_{self.name}"
        return np.load(self.folder / f"{output}{suffix}.npy")


def read_golden(path: Path, padding_row: bool = False) -> Golden:
    """Open a checkpoint of the authors, with their padding item as item 0 if asked to."""
    checkpoint = read_recbole(path)
    text = torch.from_numpy(np.load(path.parent / "plm_embeddings.npy"))
    rows = np.arange(0 if padding_row else 1, len(text))
    return Golden(checkpoint, checkpoint.model(rows), text[torch.from_numpy(rows)], path.parent)


@pytest.fixture(scope="session")
def authors() -> Path:
    """The folder of the authors' golden files: ``CKD_FIXTURES`` where that is set, else those kept here."""
    return AUTHORS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a golden checkpoint with each one, or each of the stages in its attribute ``stages``."""
    if "golden_path" in metafunc.fixturenames:
        folder = AUTHORS / "unisrec"
        by_file = json.loads((folder / "config.json").read_text())["train_stage_by_file"]
        wanted = getattr(metafunc.function, "stages", by_file.values())
        files = [name for name, stage in by_file.items() if stage in wanted]
        metafunc.parametrize("golden_path", [folder / name for name in files], ids=files)


@pytest.fixture
def golden(golden_path: Path) -> Golden:
    """Each of the authors' UniSRec checkpoints, without the padding item."""
    return read_golden(golden_path)


@pytest.fixture
def golden_with_padding(golden_path: Path) -> Golden:
    """Each of the authors' UniSRec checkpoints; item 0 is the padding item."""
    return read_golden(golden_path, padding_row=True)


@contextmanager
def _foreign(path: str) -> Iterator[type]:
    """Give a class of a module that exists inside this block only."""
    module, _, name = path.rpartition(".")
    parts = module.split(".")
    names = [".".join(parts[: n + 1]) for n in range(len(parts))]
    sys.modules.update({name: ModuleType(name) for name in names})
    made = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, made)
    try:
        yield made
    finally:
        for name in names:
            del sys.modules[name]


@pytest.fixture
def write_recbole() -> Callable[..., Path]:
    """A function that writes a file as RecBole does: the hyper-parameters in an object of a class that is not here."""

    def write(path: Path, final: Any, tensors: dict[str, Any], protocol: int = 2, **more: Any) -> Path:
        with _foreign("elsewhere.config.configurator.Config") as made:
            config = made()
            config.__dict__.update(final_config_dict=final, parameters={"General": ["seed"]}, compatibility=made)
            torch.save({"config": config, "epoch": 3, "state_dict": tensors, **more}, path, pickle_protocol=protocol)
        return path

    return write
