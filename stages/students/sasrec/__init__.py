"""SASRec: self-attentive sequential recommendation (Kang and McAuley, ICDM 2018; arXiv 1808.09781)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from ckd.stages.students.settings import AttentionSizes, StudentSettings

if TYPE_CHECKING:
    from ckd.stages.students.contract import Domain
    from ckd.stages.students.sasrec.network import SASRec


class Sizes(AttentionSizes):
    """Sizes of the network, be it a student or a teacher."""

    kind: Literal["sasrec"] = "sasrec"


class Settings(Sizes, StudentSettings):
    """A SASRec; trained with full softmax cross-entropy instead of the paper's one negative."""


def build(settings: Settings, domains: "Sequence[Domain]") -> "SASRec":
    """Return a freshly initialised network over the items of some domains."""
    from ckd.stages.students.sasrec.network import SASRec

    return SASRec(settings, sum(domain.corpus.n_items for domain in domains))
