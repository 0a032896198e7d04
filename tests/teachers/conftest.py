"""The golden files of UniSRec's authors, read into ckd's network."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ckd.stages.teachers.unisrec import NetworkSettings
from ckd.stages.teachers.unisrec.network import UniSRec

FOLDER = Path(__file__).parent.parent / "fixtures" / "unisrec"


@dataclass(frozen=True)
class Golden:
    """One checkpoint of the authors; ids 1..n of theirs are rows 0..n-1 here."""

    model: UniSRec
    text: torch.Tensor
    suffix: str
    folder: Path = FOLDER

    def array(self, name):
        return np.load(FOLDER / f"{name}{self.suffix}.npy")

    def scores(self, double=False):
        name = self.suffix.removeprefix("_") or "inductive"
        return np.load(FOLDER / f"expected_{name}{'_float64' if double else ''}.npy")


def network(**changed):
    theirs = json.loads((FOLDER / "config.json").read_text())
    ours = {
        "hidden": theirs["hidden_size"],
        "experts": theirs["n_exps"],
        "layers": theirs["n_layers"],
        "heads": theirs["n_heads"],
        "inner": theirs["inner_size"],
        "max_length": theirs["MAX_ITEM_LIST_LENGTH"],
        "activation": theirs["hidden_act"],
        "layer_norm_eps": theirs["layer_norm_eps"],
        "temperature": theirs["temperature"],
    }
    return NetworkSettings(**(ours | changed))


def read(file, suffix, padding_row=False):
    """Build ckd's network from the authors' tensors, every one of which must find its place."""
    tensors = load_file(FOLDER / f"{file}.safetensors")
    tensors.pop("plm_embedding.weight", None)
    first = 0 if padding_row else 1
    if "item_embedding.weight" in tensors:
        tensors["item_embedding.weight"] = tensors["item_embedding.weight"][first:]
    text = torch.from_numpy(np.load(FOLDER / "plm_embeddings.npy"))[first:]
    ids = tensors.get("item_embedding.weight")
    model = UniSRec(network(), text.shape[1], None if ids is None else len(ids))
    model.load_state_dict(tensors)
    return Golden(model.eval(), text, suffix)


FILES = {
    "inductive": ("UniSRec-tiny", ""),
    "transductive": ("UniSRec-tiny-transductive", "_transductive"),
    "pretrained": ("UniSRec-tiny-pretrain", "_pretrained_inductive"),
}


@pytest.fixture(params=list(FILES))
def golden(request):
    """Each of the authors' checkpoints, without the padding row."""
    return read(*FILES[request.param])


@pytest.fixture
def read_golden():
    """A function that reads one of them, with the padding row if asked to."""
    return lambda name, padding_row=False: read(*FILES[name], padding_row)
