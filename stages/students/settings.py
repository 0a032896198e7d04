"""What the settings of every student have in common. Imports nothing heavy."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from ckd.stages import settings
from ckd.stages.settings import undivided

Scope = Literal["per_domain", "joint"]


class AttentionSizes(settings.Settings):
    """Sizes that all networks of self-attention over item ids have."""

    hidden: int = Field(default=64, ge=1, description="width of item vectors and layers")
    blocks: int = Field(default=2, ge=1, description="self-attention blocks")
    heads: int = Field(default=2, ge=1, description="attention heads per block; they divide hidden")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="of embeddings, attention and feed-forward layers")
    max_length: int = Field(default=50, ge=1, description="items of a history that are seen, the last ones")

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield a width that the heads do not divide."""
        return undivided(values["hidden"], values["heads"])


class StudentSettings(settings.Settings):
    """Base of the ``Settings`` of a kind of student; each has a literal field ``kind`` beside these.

    A kind overrides the defaults of the optimiser by its own, chosen on validation (benchmarks/README.md, Recipes).
    """

    scope: Scope = Field(
        default="per_domain",
        description="one network for each domain, or one for all: a joint student shares everything but the items",
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="of AdamW")
    weight_decay: float = Field(default=0.5, ge=0, description="of AdamW, decoupled")
