"""DeepFM: a factorisation machine and a network with shared vectors (Guo et al. 2017, arXiv 1703.04247)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ckd.stages.students.fm import Fields

if TYPE_CHECKING:
    from ckd.stages.students.contract import Domain
    from ckd.stages.students.deepfm.network import DeepFM


class Settings(Fields):
    """A DeepFM; trained with a sampled softmax instead of the paper's sigmoid of clicks."""

    kind: Literal["deepfm"] = "deepfm"
    layers: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(32, 16), min_length=1, description="widths of the network's hidden layers"
    )
    negatives: int = Field(
        default=256,
        ge=1,
        description="items sampled per step to estimate the softmax's normaliser; as many as there are make it exact",
    )


def build(settings: Settings, domains: "Sequence[Domain]") -> "DeepFM":
    """Return a freshly initialised network over the items of some domains."""
    from ckd.stages.students.deepfm.network import DeepFM

    return DeepFM(settings, domains)
