"""Small domains to train teachers on, and processes that die where they are told to."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from circle_world import circle_corpus

from ckd.stages.teachers.contract import DomainData, TextVectors
from ckd.storage.artifact import load_artifact

N_ITEMS, USERS = 30, 60
COLOURS, THINGS = ("red", "blue", "steel", "paper", "glue"), ("tape", "pen", "box", "nail", "ink", "tin")
TRAINING = """\
store: store
device: cpu
domains:
  tiny: {{path: {raw}, k_core: 1}}
sources:
  other: {{path: {raw}-elsewhere, k_core: 1}}
text: {{encoder: {encoder}, max_tokens: 12}}
labels: {{top_k: 7}}
teachers:
  own:
    kind: unisrec
    pretrain:
      held_out: 0
      network: {{hidden: 8, experts: 2, layers: 1, heads: 2, inner: 8, max_length: 8}}
      epochs: {epochs}
      batch_size: 8
    adapt: {{mode: inductive, epochs: {epochs}, patience: 9, batch_size: 8, learning_rate: 0.3, seed: 2}}
"""
MORTAL = """\
import os, signal, sys

def die(event, arguments, left=[{count}]):
    if event == {event!r} and os.fspath(arguments[0]).endswith({ending}) and os.environ.get("RANK", "0") == "0":
        left[0] -= 1
        if left[0] == 0:
            if event == "open":
                descriptor = os.open(arguments[0], os.O_WRONLY | os.O_CREAT)
                os.write(descriptor, b"PK and no more")
            os.kill(os.getpid(), signal.SIGKILL)

def watch(event, arguments):
    if event == "os.rename" or (event == "open" and "r" not in (arguments[1] or "r")):
        die(event, arguments)

sys.addaudithook(watch)
from ckd.pipeline.cli import main

sys.exit(main())
"""


@dataclass(frozen=True)
class Trained:
    """What a training left, but for what tells when it was done."""

    files: dict[str, str]
    curve: list[dict[str, float]]
    facts: dict[str, Any]


def read_trained(store: Path) -> dict[str, Trained]:
    """Return the frozen teachers of a store, all verified: pre-trained (``pretrain``) and adapted (``adapt``)."""
    found = {}
    for folder in sorted((store / "teachers").glob("[!.]*")):
        artifact = load_artifact(folder)
        assert artifact is not None
        artifact.verify()
        assert {path.name for path in folder.iterdir()} == {*artifact.files, "manifest.json", "manifest.spare.json"}
        digests = {name: receipt.sha256 for name, receipt in artifact.files.items() if name != "curve.parquet"}
        rows = pq.read_table(folder / "curve.parquet").drop_columns("seconds").to_pylist()
        found[artifact.inputs["step"]] = Trained(digests, rows, dict(artifact.facts))
    return found


@pytest.fixture(scope="session")
def mortal() -> Callable[..., str]:
    """A function that returns the code of a `ckd` that is killed at a step of its own.

    ``event`` is ``open`` (the file is left torn) or ``os.rename``, ``ending`` that of the path, ``count`` which time.
    """

    def code(event: str, ending: str | tuple[str, ...], count: int = 1) -> str:
        return MORTAL.format(event=event, ending=repr(ending), count=count)

    return code


@pytest.fixture(scope="session")
def training_place(world, make_workplace):
    """A function that makes a workplace in which a teacher can be trained: corpora and text vectors are there."""

    def make(folder: Path, epochs: int) -> Any:
        place = make_workplace(folder)
        (folder / "pipeline.yaml").write_text(TRAINING.format(raw=world.raw, encoder=world.encoder, epochs=epochs))
        return place

    return make


@pytest.fixture(scope="session")
def teachers_in() -> Callable[[Path], dict[str, Trained]]:
    """A function that returns the frozen teachers of a store, all verified, by the step that made them."""
    return read_trained


@pytest.fixture(scope="session")
def circle() -> Any:
    """A domain in which users walk around a circle of items, each with a text of its own."""
    draw = np.random.default_rng(0)
    corpus = circle_corpus(draw, USERS, COLOURS, THINGS)
    return DomainData(corpus, TextVectors(draw.normal(size=(N_ITEMS, 16)).astype(np.float32), "encoder"))
