"""What the scores of a list say about the probability of its items, by the three meanings that scores can have."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ckd.stages.teachers.scores.listing import Float64s, Int64s, Listing

if TYPE_CHECKING:
    from ckd.stages.teachers.scores import Settings

TOLERANCE = 1e-2
"""By how much rounded probabilities may sum to more than one: log-probabilities are often kept as float16."""


def log_probabilities(listing: Listing, settings: "Settings", n_items: int) -> Float64s:
    """Return the log-probability over the catalogue of each listed item, float64 [M].

    - ``logprob``: the scores as they are.
    - ``logit``: log of the listed mass times the softmax of score / ``temperature`` over the list.
    - ``none``: log of the listed mass times w(rank) / sum of w, w = 1/log2(1 + rank), the discount of NDCG. (The
      position weight of DLLM2Rec, exp(-rank), would leave hardly anything to the end of a longer list.)

    The listed mass is ``listed_mass``, or as much more as the last item of the list needs to have twice an unlisted
    item's share: lists are best first, so what is not listed is no better than what is. A list of the whole catalogue
    holds all probability.

    Raises:
        UserError: scores are missing, infinite, not descending, or no log-probabilities.
    """
    scores = listing.scores
    if scores is not None:
        _refuse_unordered(listing, scores)
        if settings.scores == "logprob":
            _refuse_improbable(listing, scores, n_items)
            return scores
        scores = scores / settings.temperature
    else:
        rank = np.arange(len(listing.items)) - np.repeat(listing.offsets[:-1], listing.length) + 1
        scores = -np.log(np.log2(1.0 + rank))
    shares = scores - np.repeat(_log_sum(scores, listing.offsets), listing.length)
    last = np.exp(shares[listing.offsets[1:] - 1])
    mass = np.maximum(settings.listed_mass, 1 / (1 + (n_items - listing.length) * last / 2))
    return shares + np.repeat(np.log(mass), listing.length)


def _refuse_unordered(listing: Listing, scores: Float64s) -> None:
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        listing.refuse_entry(wrong[0], f"the score {scores[wrong[0]]} is no finite number")
    rising = scores[1:] > scores[:-1]
    rising[listing.offsets[1:-1] - 1] = False  # from one list to the next
    if rising.any():
        at = np.flatnonzero(rising)[0] + 1
        listing.refuse_entry(
            at, f"score {scores[at]:g} after {scores[at - 1]:g}: a list must be best first, its scores must not rise"
        )


def _refuse_improbable(listing: Listing, scores: Float64s, n_items: int) -> None:
    above = np.flatnonzero(scores > TOLERANCE)
    if len(above):
        listing.refuse_entry(
            above[0], f"the log-probability {scores[above[0]]:g} is above 0; raw scores are scores: logit"
        )
    held = np.exp(_log_sum(scores, listing.offsets))
    wrong = (held > 1 + TOLERANCE) | ((listing.length == n_items) & (held < 1 - TOLERANCE))
    if wrong.any():
        at = np.flatnonzero(wrong)[0]
        expected = "more than 1" if held[at] > 1 else "less than 1 though every item is listed"
        listing.refuse(at, f"its probabilities sum to {held[at]:.4g}, {expected}; raw scores are scores: logit")


def _log_sum(scores: Float64s, offsets: Int64s) -> Float64s:
    """Return the log of the sum of exp of each list, [P]; no list is empty."""
    starts, length = offsets[:-1], np.diff(offsets)
    if not len(starts):
        return np.empty(0)
    best: npt.NDArray[np.float64] = np.maximum.reduceat(scores, starts)
    return best + np.log(np.add.reduceat(np.exp(scores - np.repeat(best, length)), starts))
