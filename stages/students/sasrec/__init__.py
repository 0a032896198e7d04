"""SASRec: self-attentive sequential recommendation (Kang and McAuley, ICDM 2018; arXiv 1808.09781)."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from ckd.stages import settings

if TYPE_CHECKING:
    from ckd.stages.students.sasrec.network import SASRec


class Settings(settings.Settings):
    """Sizes of a SASRec; trained with full softmax cross-entropy instead of the paper's one negative."""

    kind: Literal["sasrec"] = "sasrec"
    hidden: int = Field(default=64, ge=1, description="width of item vectors and layers")
    blocks: int = Field(default=2, ge=1, description="self-attention blocks")
    heads: int = Field(default=2, ge=1, description="attention heads per block; they divide hidden")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="of embeddings, attention and feed-forward layers")
    max_length: int = Field(default=50, ge=1, description="items of a history that are seen, the last ones")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


def build(settings: Settings, n_items: int) -> "SASRec":
    """Return a freshly initialised network over a catalogue of ``n_items``."""
    from ckd.stages.students.sasrec.network import SASRec

    return SASRec(settings, n_items)
