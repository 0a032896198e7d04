"""BERT4Rec: bidirectional attention and the Cloze task (Sun et al., CIKM 2019; arXiv 1904.06690)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ckd.stages.students.settings import AttentionSizes, StudentSettings

if TYPE_CHECKING:
    from ckd.stages.students.bert4rec.network import BERT4Rec
    from ckd.stages.students.contract import Domain


class Settings(AttentionSizes, StudentSettings):
    """A BERT4Rec; trained with full softmax cross-entropy, as the paper has it."""

    kind: Literal["bert4rec"] = "bert4rec"
    learning_rate: float = Field(default=2e-3, gt=0, description="of AdamW")
    weight_decay: float = Field(default=0.1, ge=0, description="of AdamW, decoupled")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="of embeddings, attention and feed-forward layers")
    mask_share: float = Field(
        default=0.2, ge=0, lt=1, description="share of a history's items that are masked too, to be told from the rest"
    )
    ends: int = Field(
        default=8, ge=1, description="history ends of a sequence that an epoch teaches, at most; drawn anew each time"
    )


def build(settings: Settings, domains: "Sequence[Domain]") -> "BERT4Rec":
    """Return a freshly initialised network over the items of some domains."""
    from ckd.stages.students.bert4rec.network import BERT4Rec

    return BERT4Rec(settings, sum(domain.corpus.n_items for domain in domains))
