"""Settings of the evaluation: leave-one-out, full ranking."""

from typing import Annotated

from pydantic import Field

from ckd.stages.settings import Settings


class EvaluateSettings(Settings):
    """How held-out targets are ranked and reported."""

    cutoffs: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(10, 50), min_length=1, description="k of Recall@k and NDCG@k"
    )
    mask_history: bool = Field(
        default=False,
        description="take the items of a user's history out of the ranking; the teachers' authors do not",
    )
    bootstrap: int = Field(default=10_000, ge=100, description="resamples of the paired bootstrap over users")
