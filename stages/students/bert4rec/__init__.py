"""BERT4Rec: bidirectional attention and the Cloze task (Sun et al., CIKM 2019; arXiv 1904.06690)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ckd.stages.settings import undivided
from ckd.stages.students.settings import StudentSettings

if TYPE_CHECKING:
    from ckd.stages.students.bert4rec.network import BERT4Rec
    from ckd.stages.students.contract import Domain


class Settings(StudentSettings):
    """A BERT4Rec; trained with full softmax cross-entropy, as the paper has it."""

    kind: Literal["bert4rec"] = "bert4rec"
    learning_rate: float = Field(default=2e-3, gt=0, description="of AdamW")
    weight_decay: float = Field(default=0.1, ge=0, description="of AdamW, decoupled")
    hidden: int = Field(default=64, ge=1, description="width of item vectors and layers")
    blocks: int = Field(default=2, ge=1, description="self-attention blocks")
    heads: int = Field(default=2, ge=1, description="attention heads per block; they divide hidden")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="of embeddings, attention and feed-forward layers")
    max_length: int = Field(default=50, ge=1, description="items of a history that are seen, the last ones")
    mask_share: float = Field(
        default=0.2, ge=0, lt=1, description="share of a history's items that are masked too, to be told from the rest"
    )
    ends: int = Field(
        default=8, ge=1, description="history ends of a sequence that an epoch teaches, at most; drawn anew each time"
    )

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield a width that the heads do not divide."""
        return undivided(values["hidden"], values["heads"])


def build(settings: Settings, domains: "Sequence[Domain]") -> "BERT4Rec":
    """Return a freshly initialised network over the items of some domains."""
    from ckd.stages.students.bert4rec.network import BERT4Rec

    return BERT4Rec(settings, sum(domain.corpus.n_items for domain in domains))
