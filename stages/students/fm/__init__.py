"""FM: a factorisation machine (Rendle, ICDM 2010) of a history's features and an item's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ckd.stages.students.settings import StudentSettings

if TYPE_CHECKING:
    from ckd.stages.students.contract import Domain
    from ckd.stages.students.fm.network import FM


class Fields(StudentSettings):
    """What FM and DeepFM have in common: the features, and how many negatives the normaliser is estimated from."""

    learning_rate: float = Field(default=3e-3, gt=0, description="of AdamW")
    hidden: int = Field(default=64, ge=1, description="width of a feature's vector")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="of the vectors of a history's fields")
    max_length: int = Field(default=50, ge=1, description="items of a history that are seen, the last ones")
    places: int = Field(default=3, ge=1, description="last items of a history that are a field each")
    decay: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="weight of a history's item against the one after it; 1 is a plain mean",
    )
    min_items: int = Field(default=2, ge=1, description="a category, brand or title word of fewer items is left out")
    max_features: int = Field(default=10_000, ge=1, description="categories, brands and title words, at most, of each")
    negatives: int = Field(
        default=512,
        ge=1,
        description="items sampled per step to estimate the softmax's normaliser; as many as there are make it exact",
    )


class Settings(Fields):
    """A factorisation machine of degree two."""

    kind: Literal["fm"] = "fm"


def build(settings: Settings, domains: "Sequence[Domain]") -> "FM":
    """Return a freshly initialised network over the items of some domains."""
    from ckd.stages.students.fm.network import FM

    return FM(settings, domains)
