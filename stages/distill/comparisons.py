"""How each loss of `distill.loss` compares a student's scores with a teacher's opinion: one line for each.

A comparison takes what one teacher says, the rows of its labels at N positions [N], the student's scores there, the
batch's distinct target items [U] and the settings; it returns one value per position, float [N].
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import pad

from ckd.stages.distill import losses
from ckd.stages.distill.opinion import Opinion
from ckd.stages.distill.settings import DistillSettings, LossName
from ckd.stages.students.contract import Scores

Comparison = Callable[[Opinion, Tensor, Scores, Tensor, DistillSettings], Tensor]


def _in_batch(opinion: Opinion, row: Tensor, scores: Scores, batch: Tensor, settings: DistillSettings) -> Tensor:
    return losses.in_batch(scores.among(batch), opinion.scores(row, batch), settings.temperature, opinion.temperature)


def _top_k(opinion: Opinion, row: Tensor, scores: Scores, batch: Tensor, settings: DistillSettings) -> Tensor:
    items = opinion.at(opinion.items, row).long()
    own = scores.of(items)
    return losses.top_k(
        own,
        scores.normaliser(items, own),
        opinion.at(opinion.logprobs, row),
        opinion.kept_mass[row],
        settings.temperature,
        opinion.temperature,
    )


def _top_k_plus_student(
    opinion: Opinion, row: Tensor, scores: Scores, batch: Tensor, settings: DistillSettings
) -> Tensor:
    favourites = scores.best(settings.student_items)
    again = opinion.stores(row, favourites)
    items = torch.cat([opinion.at(opinion.items, row).long(), favourites], 1)
    own = scores.of(items)
    once = own.masked_fill(pad(again, (items.shape[1] - again.shape[1], 0)), -torch.inf)
    return losses.top_k_plus_student(
        own,
        scores.normaliser(items, once),
        torch.cat([opinion.at(opinion.logprobs, row), opinion.scores_of(row, favourites)], 1),
        opinion.kept_mass[row],
        again,
        settings.temperature,
        opinion.temperature,
    )


def _rank(opinion: Opinion, row: Tensor, scores: Scores, batch: Tensor, settings: DistillSettings) -> Tensor:
    alone = opinion.whole or settings.rank_against == "listed"
    items = opinion.at(opinion.items, row).long()
    own = scores.of(items)
    return losses.rank(
        own,
        None if alone else scores.normaliser(items, own),
        opinion.at(opinion.logprobs, row),
        None if opinion.ranked is None else opinion.at(opinion.ranked, row),
    )


COMPARISONS: Mapping[LossName, Comparison] = {
    "in_batch": _in_batch,
    "top_k": _top_k,
    "top_k_plus_student": _top_k_plus_student,
    "rank": _rank,
}
"""Every name that `distill.loss` may hold."""
