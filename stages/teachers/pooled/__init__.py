"""A teacher of item vectors alone: the query of a history is a weighted mean of its items' vectors.

Not a kind by itself: the kinds that differ only in where the item vectors come from share it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from ckd.stages.teachers.settings import TeacherSettings

DECAY = 0.3


class PooledSettings(TeacherSettings):
    """How item vectors become scores; the base of ``Settings`` of such kinds."""

    query: Literal["mean", "last", "decay"] = Field(
        default="decay",
        description="the vector of a history: mean of its items, its last item, or a mean that decays into the past",
    )
    decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description=f"with query decay, the item n places back weighs decay**n; {DECAY} if not given",
    )
    max_length: int = Field(default=50, ge=1, description="items of a history that are seen, the last ones")
    similarity: Literal["cosine", "dot"] = Field(
        default="cosine",
        description="cosine: item vectors are scaled to length 1 before the mean and the query after it; "
        "dot: all are taken as they are",
    )
    temperature: float = Field(
        default=0.2, gt=0, description="tau: scores are similarity / tau; changes how sure the teacher is, no rank"
    )
    center: bool = Field(
        default=True, description="subtract the mean vector of the catalogue first; text vectors all lean one way"
    )

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield a decay that nothing reads."""
        if values["decay"] is not None and values["query"] in ("mean", "last"):
            yield f"decay belongs to query: decay, and query is {values['query']}; change query or take decay out"

    @property
    def weight(self) -> float:
        """Weight of an item over that of the one after it: 1 for the mean, 0 for the last item."""
        return {"mean": 1.0, "last": 0.0, "decay": DECAY if self.decay is None else self.decay}[self.query]

    @property
    def seen(self) -> int:
        """Items of a history that have any weight, at most."""
        return 1 if self.query == "last" else self.max_length

    def scoring(self, gpu: Callable[[], bool]) -> dict[str, Any]:
        """Return what turns vectors into scores, so that two ways to say the same have one key."""
        return {
            "weight": self.weight,
            "max_length": self.seen,
            "similarity": self.similarity,
            "temperature": self.temperature,
            "center": self.center,
        }
