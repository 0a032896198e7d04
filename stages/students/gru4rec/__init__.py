"""GRU4Rec: session-based recommendation with recurrent networks (Hidasi et al., ICLR 2016; arXiv 1511.06939)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ckd.stages.students.settings import StudentSettings

if TYPE_CHECKING:
    from ckd.stages.students.contract import Domain
    from ckd.stages.students.gru4rec.network import GRU4Rec


class Settings(StudentSettings):
    """A GRU4Rec; trained with full softmax cross-entropy instead of the papers' sampled ranking losses."""

    kind: Literal["gru4rec"] = "gru4rec"
    learning_rate: float = Field(default=2e-3, gt=0, description="of AdamW")
    hidden: int = Field(default=64, ge=1, description="width of item vectors and of the recurrent state")
    layers: int = Field(default=1, ge=1, description="recurrent layers")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="of embeddings and of what each layer puts out")
    tied: bool = Field(default=True, description="whether the vectors that score items are those that are read")
    max_length: int = Field(default=50, ge=1, description="items of a history that are seen, the last ones")


def build(settings: Settings, domains: "Sequence[Domain]") -> "GRU4Rec":
    """Return a freshly initialised network over the items of some domains."""
    from ckd.stages.students.gru4rec.network import GRU4Rec

    return GRU4Rec(settings, sum(domain.corpus.n_items for domain in domains))
