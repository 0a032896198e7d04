"""What the settings of every student have in common. Imports nothing heavy."""

from typing import Literal

from pydantic import Field

from ckd.stages import settings

Scope = Literal["per_domain", "joint"]


class StudentSettings(settings.Settings):
    """Base of the ``Settings`` of a kind of student; each has a literal field ``kind`` beside these.

    A kind overrides the defaults of the optimiser by its own, found by a search on validation.
    """

    scope: Scope = Field(
        default="per_domain",
        description="one network for each domain, or one for all: a joint student shares everything but the items",
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="of AdamW")
    weight_decay: float = Field(default=0.5, ge=0, description="of AdamW, decoupled")
