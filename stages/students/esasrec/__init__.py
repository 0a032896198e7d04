"""eSASRec: SASRec's objective with LiGR layers (Tikhonovich et al., RecSys 2025; arXiv 2508.06450)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ckd.stages.settings import undivided
from ckd.stages.students.settings import StudentSettings

if TYPE_CHECKING:
    from ckd.stages.students.contract import Domain
    from ckd.stages.students.esasrec.network import ESASRec


class Settings(StudentSettings):
    """An eSASRec; trained with full softmax cross-entropy, which the paper samples."""

    kind: Literal["esasrec"] = "esasrec"
    hidden: int = Field(default=64, ge=1, description="width of item vectors and layers")
    blocks: int = Field(default=2, ge=1, description="gated blocks of self-attention and feed-forward layer")
    heads: int = Field(default=2, ge=1, description="attention heads per block; they divide hidden")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="of embeddings, attention and feed-forward layers")
    max_length: int = Field(default=50, ge=1, description="items of a history that are seen, the last ones")

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield a width that the heads do not divide."""
        return undivided(values["hidden"], values["heads"])


def build(settings: Settings, domains: "Sequence[Domain]") -> "ESASRec":
    """Return a freshly initialised network over the items of some domains."""
    from ckd.stages.students.esasrec.network import ESASRec

    return ESASRec(settings, sum(domain.corpus.n_items for domain in domains))
