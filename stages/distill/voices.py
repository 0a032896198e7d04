"""A teacher's opinion as the losses in closed form take it: a voice of :mod:`ckd.stages.distill.fused`."""

from torch import Tensor

from ckd.stages.distill.fused import Best, Voice
from ckd.stages.distill.opinion import Opinion
from ckd.stages.distill.settings import DistillSettings


def voice_of(opinion: Opinion, row: Tensor, weight: Tensor, batch: Tensor, settings: DistillSettings) -> Voice:
    """Return what a teacher says at N positions.

    Args:
        opinion: the teacher's.
        row: int64 [N], of its labels; any one where it has none.
        weight: float [N], what it counts at each position; zero where it has no label.
        batch: int64 [U], the distinct targets.
        settings: weights of the losses.
    """

    def best(here: slice) -> Best:
        rows = row[here]
        return Best(opinion.at(opinion.items, rows).long(), opinion.at(opinion.logprobs, rows), opinion.kept_mass[rows])

    top_k, in_batch = settings.loss.get("top_k"), settings.loss.get("in_batch")
    return Voice(
        top_k=top_k * weight if top_k else None,
        in_batch=in_batch * weight if in_batch else None,
        best=best,
        among=opinion.scorer(row, batch) if in_batch else None,
        temperature=opinion.temperature,
    )
