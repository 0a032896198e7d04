"""``config.json`` of a Recformer: the fields of the authors' ``RecformerConfig`` that a score depends on."""

import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from transformers.activations import ACT2FN

from ckd.stages.teachers.recformer import NetworkSettings
from ckd.stages.teachers.recformer.tokens import ATTRIBUTES, PAD, START, Limits
from ckd.storage.errors import UserError

_MARGIN = 2
"""Position ids start at PAD + 1, so there are two more of them than tokens."""


_MOST_LAYERS = 1_000


class RecformerConfig(BaseModel):
    """What the weights do not say; other fields of the file are passed over and have no effect on a score."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    vocab_size: int = Field(ge=5)
    hidden_size: int = Field(ge=1)
    num_hidden_layers: int = Field(ge=1)
    num_attention_heads: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    hidden_act: str
    layer_norm_eps: float = Field(gt=0)
    max_position_embeddings: int = Field(ge=1)
    attention_window: tuple[int, ...]
    token_type_size: int = Field(ge=4)
    max_token_num: int = Field(ge=1)
    max_item_embeddings: int = Field(ge=2)
    max_attr_num: int = Field(ge=1)
    max_attr_length: int = Field(ge=1)
    temp: float = Field(gt=0)
    mlm_weight: float = Field(default=0.1, ge=0)
    hidden_dropout_prob: float = Field(default=0.1, ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(default=0.1, ge=0, lt=1)
    initializer_range: float = Field(default=0.02, gt=0)
    pad_token_id: int = PAD
    bos_token_id: int = START
    pooler_type: str = "cls"
    items: str | None = None
    """Digest of the catalogue whose item table ckd stored with the weights, by code; the authors have no such field."""

    @field_validator("hidden_act")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ACT2FN:
            raise ValueError(f"{name!r} is no activation of Hugging Face's transformers, such as gelu")
        return name

    @model_validator(mode="before")
    @classmethod
    def _window_per_layer(cls, values: Any) -> Any:
        # HF's Longformer takes one number for all layers.
        layers = values.get("num_hidden_layers") if isinstance(values, dict) else None
        if type(layers) is int and layers <= _MOST_LAYERS and type(values.get("attention_window")) is int:
            values = values | {"attention_window": (values["attention_window"],) * layers}
        return values

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.attention_window) != self.num_hidden_layers:
            raise ValueError(
                f"attention_window has {len(self.attention_window)} entries, but num_hidden_layers is "
                f"{self.num_hidden_layers}"
            )
        if any(window < 2 or window % 2 for window in self.attention_window):
            raise ValueError(f"attention_window must hold even numbers, not {list(self.attention_window)}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads})"
            )
        if self.max_position_embeddings < self.max_token_num + _MARGIN:
            raise ValueError(
                f"max_position_embeddings ({self.max_position_embeddings}) must be at least max_token_num + 2 "
                f"({self.max_token_num + _MARGIN})"
            )
        if (self.pad_token_id, self.bos_token_id) != (PAD, START):
            raise ValueError(
                f"bos_token_id and pad_token_id must be {START} and {PAD}, as the authors' tokenizer has them"
            )
        if self.pooler_type != "cls":
            raise ValueError(f"pooler_type must be cls, not {self.pooler_type!r}")
        return self

    @property
    def limits(self) -> Limits:
        """What of an item and of a history is read."""
        return Limits(self.max_attr_num, self.max_attr_length, self.max_item_embeddings - 1, self.max_token_num)


def from_settings(network: NetworkSettings) -> RecformerConfig:
    """Return the configuration of a network that is trained from scratch."""
    return RecformerConfig(
        vocab_size=network.vocabulary,
        hidden_size=network.hidden,
        num_hidden_layers=network.layers,
        num_attention_heads=network.heads,
        intermediate_size=network.inner,
        hidden_act="gelu",
        layer_norm_eps=1e-5,
        max_position_embeddings=network.max_tokens + _MARGIN,
        attention_window=(network.window,) * network.layers,
        token_type_size=4,
        max_token_num=network.max_tokens,
        max_item_embeddings=network.max_items + 1,
        max_attr_num=len(ATTRIBUTES),
        max_attr_length=network.max_attribute_tokens,
        temp=network.temperature,
        hidden_dropout_prob=network.dropout,
        attention_probs_dropout_prob=network.dropout,
    )


def load_config(path: Path) -> RecformerConfig:
    """Read and check a ``config.json``.

    Raises:
        UserError: it is missing, no JSON, or lacks a field or holds a wrong one; names the first.
    """
    try:
        return RecformerConfig.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; a Recformer needs the config.json of its RecformerConfig") from None
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing":
            raise UserError(
                f"{path}: {field} is missing; write all fields of the authors' RecformerConfig into it (a plain "
                "Longformer configuration lacks what the authors set in their scripts)"
            ) from None
        raise UserError(
            f"{path}: {f'{field}: ' if field else ''}{problem['msg'].removeprefix('Value error, ')}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON in UTF-8: {error}") from None


def save_config(config: RecformerConfig, path: Path) -> None:
    """Write a configuration as JSON."""
    values = {"kind": "recformer", "format": 1, **config.model_dump(mode="json")}
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
