"""eSASRec: SASRec's objective with LiGR layers (Tikhonovich et al., RecSys 2025; arXiv 2508.06450)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ckd.stages.students.settings import AttentionSizes, StudentSettings

if TYPE_CHECKING:
    from ckd.stages.students.contract import Domain
    from ckd.stages.students.esasrec.network import ESASRec


class Settings(AttentionSizes, StudentSettings):
    """An eSASRec; trained with full softmax cross-entropy, which the paper samples."""

    kind: Literal["esasrec"] = "esasrec"
    blocks: int = Field(default=2, ge=1, description="gated blocks of self-attention and feed-forward layer")


def build(settings: Settings, domains: "Sequence[Domain]") -> "ESASRec":
    """Return a freshly initialised network over the items of some domains."""
    from ckd.stages.students.esasrec.network import ESASRec

    return ESASRec(settings, sum(domain.corpus.n_items for domain in domains))
