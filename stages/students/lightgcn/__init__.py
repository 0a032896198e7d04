"""LightGCN: light graph convolution over who bought what (He et al. 2020, arXiv 2002.02126)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from ckd.stages.students.settings import StudentSettings

if TYPE_CHECKING:
    from ckd.stages.students.contract import Domain
    from ckd.stages.students.lightgcn.network import LightGCN


class Settings(StudentSettings):
    """A LightGCN; trained with full softmax cross-entropy instead of the paper's BPR."""

    kind: Literal["lightgcn"] = "lightgcn"
    scope: Literal["per_domain"] = Field(
        default="per_domain",
        description="one network for each domain: the graphs of two domains share neither users nor items",
    )
    learning_rate: float = Field(default=5e-3, gt=0, description="of AdamW")
    weight_decay: float = Field(default=0.1, ge=0, description="of AdamW, decoupled")
    hidden: int = Field(default=64, ge=1, description="width of user and item vectors")
    layers: int = Field(default=3, ge=0, description="steps of propagation over the graph; 0 is matrix factorisation")
    recency: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="weight of a position against the one after it, of the same user; 1 counts all alike",
    )

    repeats: bool = Field(
        default=False,
        description="whether a user's training items may come first again; if not, they come behind all others",
    )

    @field_validator("scope", mode="before")
    @classmethod
    def _one_graph(cls, scope: Any) -> Any:
        if scope == "joint":
            raise ValueError(
                "lightgcn is per_domain only: the graphs of two domains share neither users nor items, so there is "
                "nothing that a joint one would share"
            )
        return scope


def build(settings: Settings, domains: "Sequence[Domain]") -> "LightGCN":
    """Return a freshly initialised network over the training graph of one domain."""
    from ckd.stages.students.lightgcn.network import LightGCN

    (domain,) = domains
    return LightGCN(settings, domain.corpus)
