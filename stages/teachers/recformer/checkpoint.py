"""A Recformer on disk: ckd's own frozen folder, and the authors' files in all their layouts. Opening one runs no code.

All layouts hold the same tensors under other prefixes; ``longformer.`` marks a model with something beside the encoder:
the language head of pre-training, or the item table of fine-tuning, which is what the authors score with.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from tokenizers import Tokenizer, models
from torch import Tensor

from ckd.stages.teachers.frozen import CONFIG, WEIGHTS
from ckd.stages.teachers.recformer.config import RecformerConfig, load_config
from ckd.stages.teachers.recformer.files import MERGES, TOKENIZER, VOCABULARY
from ckd.stages.teachers.recformer.network import Recformer
from ckd.stages.teachers.recformer.tokens import MASK, SPECIALS
from ckd.stages.teachers.recformer.vocabulary import add_specials, byte_level
from ckd.storage.errors import UserError

ITEM_TABLE = "item_embedding.weight"
_ENCODER = "longformer."
_WRAPPERS = ("_forward_module.model.", "_forward_module.", "model.", "module.")
"""What DeepSpeed, Lightning and data parallelism put before the names."""
_HEAD = "lm_head."
_UNUSED = ("embeddings.position_ids",)
"""Buffers of the authors' files that hold no weight."""
_WORDS = "embeddings.word_embeddings.weight"


@dataclass(frozen=True)
class Frozen:
    """What the files of a frozen Recformer hold.

    Attributes:
        model: the network, float32, in evaluation mode.
        tokenizer: of the items' texts.
        table: float32 [n, d], the item vectors of a fine-tuned file, not normalised, or None.
    """

    model: Recformer
    tokenizer: Tokenizer
    table: Tensor | None


def open_frozen(files: Mapping[str, Path]) -> Frozen:
    """Open the files that ``Settings.files`` names.

    Raises:
        UserError: a file is torn or of another kind, or a tensor is missing, unknown, of another shape or not finite.
    """
    config = load_config(files[CONFIG])
    tokenizer = open_tokenizer(files, config)
    model, table = load_weights(files[WEIGHTS], config)
    return Frozen(model, tokenizer, table)


def load_weights(path: Path, config: RecformerConfig) -> tuple[Recformer, Tensor | None]:
    """Return the network of a weights file and the item table that it may hold.

    Raises:
        UserError: see :func:`open_frozen`.
    """
    tensors = plain_names(read_tensors(path), path)
    model = Recformer(config)
    _check(path, tensors, model)
    table = tensors.pop(ITEM_TABLE, None)
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.eval(), None if table is None else table.float()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` file or of one that torch saved, under their names there.

    Raises:
        UserError: it is neither, or would have to run code to be opened.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} cannot be opened as safetensors: {error}") from None
    try:
        with warnings.catch_warnings(action="ignore"):  # of how old files were written
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn pickle can make torch raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} is no file of weights that can be opened without running code ({reason}); give the authors' .bin "
            "or .ckpt, or safetensors"
        ) from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} holds no state dict of tensors; a Recformer's .bin or .ckpt is expected")
    return {str(name): value for name, value in content.items()}


def plain_names(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the encoder's tensors under the network's own names, and the item table; without the language head.

    Raises:
        UserError: the file has no word embeddings, or a tensor twice.
    """
    named = dict(tensors)
    for wrapper in _WRAPPERS:
        if named and all(name.startswith(wrapper) for name in named):
            named = {name.removeprefix(wrapper): tensor for name, tensor in named.items()}
    named = {name: tensor for name, tensor in named.items() if not name.startswith(_HEAD)}
    for name in named:
        if f"{_ENCODER}{name}" in named:
            raise UserError(f"{path}: tensor {name} is there twice, with and without the prefix {_ENCODER}")
    named = {name.removeprefix(_ENCODER): tensor for name, tensor in named.items()}
    for name in _UNUSED:
        named.pop(name, None)
    if named and _WORDS not in named and any(name.startswith("encoder.layer.") for name in named):
        raise UserError(
            f"{path}: tensor {_WORDS} is missing: such a file leaves out the frozen word embeddings; convert it with "
            "the authors' convert_pretrain_ckpt.py, which puts them back"
        )
    return named


def open_tokenizer(files: Mapping[str, Path], config: RecformerConfig) -> Tokenizer:
    """Return the tokenizer of a checkpoint.

    Raises:
        UserError: its file is torn, or its ids are not those that the configuration asks for.
    """
    path = files[TOKENIZER] if TOKENIZER in files else files[VOCABULARY]
    try:
        if TOKENIZER in files:
            tokenizer = Tokenizer.from_file(str(path))
        else:
            tokenizer = byte_level(models.BPE.from_file(str(path), str(files[MERGES])))
    except Exception as error:  # the library raises nothing more specific
        raise UserError(f"{path} cannot be read as a tokenizer: {error}") from None
    for number, text in enumerate(SPECIALS):
        if (found := tokenizer.token_to_id(text)) != number:
            there = "no id" if found is None else f"id {found}"
            raise UserError(f"{path}: token {text} has {there}; in a Recformer's tokenizer it has id {number}")
    if tokenizer.token_to_id(MASK) is None:
        raise UserError(f"{path}: there is no token {MASK}; a Recformer's tokenizer has it")
    if tokenizer.get_vocab_size() != config.vocab_size:
        raise UserError(
            f"{path} knows {tokenizer.get_vocab_size()} tokens, config.json has vocab_size {config.vocab_size}; take "
            "the tokenizer that the weights were trained with"
        )
    # A tokenizer.json may have them in its vocabulary without finding them in texts.
    add_specials(tokenizer)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def save_weights(model: Recformer, table: Tensor | None, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a network as safetensors: bare, or as the authors' fine-tuned layout with an item table."""
    tensors = dict(model.state_dict())
    if table is not None:
        tensors = {f"{_ENCODER}{name}": tensor for name, tensor in tensors.items()} | {ITEM_TABLE: table}
    # Not save_file: what it raises on a full disk is no OSError.
    path.write_bytes(save({name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}))


def _check(path: Path, found: Mapping[str, Tensor], model: Recformer) -> None:
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, shape in expected.items():
        if name not in found:
            raise UserError(f"{path}: tensor {name} is missing; config.json asks for shape {shape}")
    for name, tensor in found.items():
        if name not in expected and name != ITEM_TABLE:
            raise UserError(f"{path}: tensor {name} is not part of the Recformer that config.json describes")
        own = list(tensor.shape)
        if name == ITEM_TABLE and (len(own) != 2 or own[1] != model.config.hidden_size):
            raise UserError(f"{path}: tensor {name} has shape {own}, expected [items, {model.config.hidden_size}]")
        if name in expected and own != expected[name]:
            raise UserError(f"{path}: tensor {name} has shape {own}, config.json asks for {expected[name]}")
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise UserError(f"{path}: tensor {name} is {tensor.dtype}, {tensor.layout}; plain floats are expected")
        if not bool(tensor.isfinite().all()):
            raise UserError(f"{path}: tensor {name} holds NaN or infinity; such weights cannot be used")
