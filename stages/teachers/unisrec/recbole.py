"""The checkpoints of UniSRec's authors: ``.pth`` files that RecBole's trainers write. Reading one runs nothing in it.

Sizes are read from the configuration in the file and checked against the tensors; what no tensor shows (heads,
activation, eps, temperature, dropout) is taken from the configuration and never assumed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from torch import Tensor

from ckd.stages.teachers.archive import Archive, open_archive
from ckd.stages.teachers.inert import Inert
from ckd.stages.teachers.unisrec import Activation, NetworkSettings
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.storage.errors import UserError

Stage = Literal["pretrain", "inductive_ft", "transductive_ft"]
TEXT, IDS = "plm_embedding.weight", "item_embedding.weight"
_FIELDS = {
    "hidden": "hidden_size",
    "experts": "n_exps",
    "layers": "n_layers",
    "heads": "n_heads",
    "inner": "inner_size",
    "max_length": "MAX_ITEM_LIST_LENGTH",
    "activation": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
    "temperature": "temperature",
    "hidden_dropout": "hidden_dropout_prob",
    "attention_dropout": "attn_dropout_prob",
    "adaptor_dropout": "adaptor_dropout_prob",
}
"""ckd's name of each setting of the network, and the authors'."""
_SHOWN = {
    "position_embedding.weight": ("MAX_ITEM_LIST_LENGTH", "hidden_size"),
    "moe_adaptor.w_gate": ("adaptor_layers[0]", "n_exps"),
    "trm_encoder.layer.0.feed_forward.dense_1.weight": ("inner_size", "hidden_size"),
}
"""Tensors whose shapes show settings."""
_COUNTS = {"layers": r"trm_encoder\.layer\.(\d+)\.", "experts": r"moe_adaptor\.experts\.(\d+)\."}
"""Settings that are a number of modules, and what the names of their tensors begin with."""
_BOUND = 2**31
"""Above any size, and short enough to print."""


@dataclass(frozen=True)
class RecBoleCheckpoint:
    """What a file of the authors holds. Row 0 of their tables is the padding item, their items are 1 to n.

    Attributes:
        path: the file.
        stage: ``train_stage``: pretrain, inductive_ft or transductive_ft.
        network: settings of the network.
        text_dimensions: p, width of the text vectors.
        weights: float32, all tensors but the two tables, by the name that they have in ckd's network too.
        text: float32 [n + 1, p], the text vectors that it was fine-tuned on (both fine-tuned stages), or None.
        ids: float32 [n + 1, d], the item ID table (transductive_ft), or None.
    """

    path: Path
    stage: Stage
    network: NetworkSettings
    text_dimensions: int
    weights: dict[str, Tensor]
    text: npt.NDArray[np.float32] | None
    ids: Tensor | None

    def model(self, rows: npt.NDArray[np.int64] | None = None) -> UniSRec:
        """Return the network, float32, in evaluation mode.

        Args:
            rows: int64 [n_items], row of the ID table of each item; the file's own items in order, without the
                padding item, by default. Without an ID table it is of no effect.
        """
        weights = dict(self.weights)
        if self.ids is not None:
            weights[IDS] = self.ids[1:] if rows is None else self.ids[torch.from_numpy(rows)]
        model = UniSRec(self.network, self.text_dimensions, len(weights[IDS]) if IDS in weights else None)
        model.load_state_dict(weights)
        return model.eval()


def read_recbole(path: Path) -> RecBoleCheckpoint:
    """Read a checkpoint of the authors' ``finetune.py``, ``pretrain.py`` or ``ddp_pretrain.py``.

    Raises:
        UserError: it is no such file, a damaged one, or its configuration and its tensors contradict each other; says
            which key or tensor, and what was expected.
    """
    with open_archive(path) as archive:
        tensors = _mapping(archive, "state_dict")
        configuration = _Configuration(path, _mapping(archive, "config"))
        stage, network = configuration.stage(), configuration.network()
        shapes = {name: archive.shape(name, value) for name, value in tensors.items()}
        text_dimensions = configuration.text_dimensions(network.hidden)
        _check_settings(path, network, text_dimensions, shapes)
        _check_shapes(path, stage, shapes, _expected(stage, network, text_dimensions, shapes))
        read = {name: _weights(archive, name, value) for name, value in tensors.items()}
    text = read.pop(TEXT, None)
    ids = read.pop(IDS, None)
    array = None if text is None else text.numpy()
    return RecBoleCheckpoint(path, stage, network, text_dimensions, read, array, ids)


class _Configuration:
    """The hyper-parameters in the file; numbers may stand there as text."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self._path, self._values = path, values

    def stage(self) -> Stage:
        return cast(Stage, self._one_of("train_stage", get_args(Stage)))

    def network(self) -> NetworkSettings:
        values: dict[str, Any] = {
            ours: self._number(theirs) for ours, theirs in _FIELDS.items() if ours != "activation"
        }
        values["activation"] = self._one_of("hidden_act", get_args(Activation))
        try:
            return NetworkSettings.model_validate(values)
        except ValidationError as error:
            problem = error.errors()[0]
            key = _FIELDS[str(problem["loc"][0])] if problem["loc"] else "hidden_size, n_heads"
            raise self._wrong(key, problem["msg"].removeprefix("Value error, ")) from None

    def text_dimensions(self, hidden: int) -> int:
        layers = self._get("adaptor_layers")
        whole = isinstance(layers, list | tuple) and len(layers) > 1 and all(_is_number(size) for size in layers)
        if not whole or type(layers[0]) is not int or layers[0] < 1:
            raise self._wrong("adaptor_layers", "two widths are expected, of the text vectors and of the items")
        # The authors' code ignores further entries too.
        if layers[1] != hidden:
            raise self._wrong("adaptor_layers", f"the second one must be hidden_size, {hidden}")
        return int(layers[0])

    def _number(self, key: str) -> float | str:
        value = self._get(key)
        # RecBole reads 1e-12 as a number, plain YAML as a text; which one stands here depends on who wrote it.
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                raise self._wrong(key, "a number is expected") from None
        if not _is_number(value):
            raise self._wrong(key, "a number is expected")
        return float(value) if isinstance(value, float) else int(value)

    def _one_of(self, key: str, known: Sequence[str]) -> str:
        value = self._get(key)
        if not isinstance(value, str) or value not in known:
            raise self._wrong(key, f"expected one of {', '.join(known)}")
        return value

    def _get(self, key: str) -> Any:
        if key not in self._values:
            raise UserError(f"{self._path}: its configuration has no {key}, without which scores cannot be computed")
        return self._values[key]

    def _wrong(self, keys: str, expected: str) -> UserError:
        values = [self._values[key] for key in keys.split(", ")]
        said = ", ".join(_said(value) for value in values)
        return UserError(f"{self._path}: {keys} in its configuration: {said}; {expected}")


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < _BOUND)


def _said(value: object) -> str:
    """Return what a value reads in a message; only plain ones, for others may be of any depth and length."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(_said(entry) for entry in value[:10] if not isinstance(entry, list | tuple))}]"
    plain = isinstance(value, str | bool | NoneType) or _is_number(value)
    return repr(value)[:100] if plain else "an object"


def _mapping(archive: Archive, key: str) -> Mapping[str, Any]:
    """Return the tensors, or the hyper-parameters in the pickled object that RecBole keeps them in."""
    content = archive.content
    found = content.get(key) if isinstance(content, dict) else None
    if key == "config" and isinstance(found, Inert) and isinstance(found.state, dict):
        found = found.state.get("final_config_dict")
    if (
        not isinstance(found, dict)
        or not found
        or not all(isinstance(name, str) and name.isprintable() for name in found)
    ):
        part = "state_dict" if key == "state_dict" else "config with a final_config_dict"
        raise UserError(f"{archive.path} is no checkpoint of RecBole: a {part} is missing")
    return cast(Mapping[str, Any], found)


def _check_settings(
    path: Path, network: NetworkSettings, text_dimensions: int, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse a file whose settings are not the sizes of its tensors; names the setting."""
    for ours, pattern in _COUNTS.items():
        numbers = {int(found[1]) for name in shapes if (found := re.match(pattern, name))}
        if numbers != set(range(getattr(network, ours))):
            raise UserError(
                f"{path}: {_FIELDS[ours]} is {getattr(network, ours)} in its configuration, "
                f"but it holds tensors of {len(numbers)}"
            )
    values = {_FIELDS[ours]: value for ours, value in network} | {"adaptor_layers[0]": text_dimensions}
    for name, keys in _SHOWN.items():
        if name not in shapes:
            raise UserError(f"{path}: tensor {name} is missing; expected shape {[values[key] for key in keys]}")
        shape = shapes[name]
        wrong = [key for axis, key in enumerate(keys) if shape[axis : axis + 1] != (values[key],)]
        if wrong or len(shape) != len(keys):
            key = (wrong or keys)[0]
            raise UserError(
                f"{path}: {key} is {values[key]} in its configuration, but tensor {name} has shape {list(shape)}"
            )


def _expected(
    stage: Stage, network: NetworkSettings, text_dimensions: int, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor that a file of these settings has to hold."""
    with torch.device("meta"):
        model = UniSRec(network, text_dimensions)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    # The number of items stands nowhere but in the tables: one item and the padding row at least.
    rows = max([2, *(shapes[name][0] for name in (TEXT, IDS) if shapes.get(name))])
    if stage != "pretrain":
        expected[TEXT] = (rows, text_dimensions)
    if stage == "transductive_ft":
        expected[IDS] = (rows, network.hidden)
    return expected


def _check_shapes(
    path: Path, stage: Stage, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    for name, shape in expected.items():
        if name not in found:
            raise UserError(f"{path}: tensor {name} is missing; expected shape {list(shape)} (train_stage {stage})")
        if found[name] != shape:
            raise UserError(
                f"{path}: tensor {name} has shape {list(found[name])}, its configuration asks for {list(shape)}"
            )
    for name in found:
        if name not in expected:
            raise UserError(
                f"{path}: tensor {name} is not part of the UniSRec that its configuration describes "
                f"(train_stage {stage})"
            )


def _weights(archive: Archive, name: str, value: object) -> Tensor:
    tensor = archive.tensor(name, value)
    if not tensor.is_floating_point():
        raise UserError(f"{archive.path}: tensor {name} is of {tensor.dtype}; weights are floating-point numbers")
    if not bool(tensor.isfinite().all()):
        raise UserError(f"{archive.path}: tensor {name} holds NaN or infinity")
    return tensor.float()
