"""Configuration files, and what is said about them."""

import os
from pathlib import Path

import pytest

from ckd.pipeline.config.load import load_configuration
from ckd.storage.errors import UserError

SMALLEST = "domains:\n  office:\n    path: data/office\n"

WHOLE = """\
store: made
seed: 7
device: cpu
domains:
  office: {path: data/office, columns: {item_id: asin}, text_vectors: data/office.npy}
  "2020": {path: /elsewhere/2020, k_core: 3}
sources:
  food: {path: ~/food, format: unisrec}
teachers:
  cold: {kind: unisrec, checkpoint: "teachers/{domain}"}
  warm:
    kind: unisrec
    pretrain: {epochs: 1, network: {hidden: 32}}
    adapt: {mode: transductive}
students:
  small: {kind: sasrec, hidden: 16, heads: 4}
text: {fields: [title]}
labels: {splits: [valid, train]}
distill:
  teachers: [cold]
  epochs: 7
  curriculum: {difficulty: {"length * 2 + 'a: b'": 0.5}, pacing: none}
evaluate: {cutoffs: [5]}
"""


def written(folder: Path, text: str) -> Path:
    """Return a configuration file in a folder."""
    path = folder / "pipeline.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def complaints(folder: Path, text: str, *overrides: str) -> list[str]:
    """Return the lines that are said about a configuration, the folder's name left out."""
    with pytest.raises(UserError) as caught:
        load_configuration(written(folder, text), overrides)
    return str(caught.value).replace(f"{folder}{os.sep}", "").splitlines()
