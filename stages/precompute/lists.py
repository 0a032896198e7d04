"""Labels from ranked lists, each completed to a distribution over the whole catalogue.

A listed item has its own probability; what the list leaves is spread evenly over all unlisted items, at least
:data:`SMALLEST_REST` of it. The order of the completed distribution is by probability, ties by item code, so that a
listed item with less than an unlisted one's share stands behind the unlisted ones. Everything is computed from
positions one by one in float64: the cut into shards and blocks changes no stored bit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ckd.stages.precompute.settings import LabelSettings
from ckd.stages.precompute.shards import Shard, asked, selected
from ckd.stages.teachers.contract import RankedLists
from ckd.storage.corpus import SPLITS, Corpus, Positions
from ckd.storage.errors import UserError
from ckd.storage.labels import LISTED_WITHIN, REST, UNIFORM, UNLISTED_FIRST, LabelBlock
from ckd.storage.rounding import ROUNDINGS

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

SMALLEST_REST = 1e-6
"""Least probability of all unlisted items together: no item of the catalogue is impossible, and one minus a float32
sum knows no smaller one."""
CELLS_PER_BLOCK = 1 << 21
"""Bounds the memory: positions at a time times what is held of each."""


@dataclass(frozen=True)
class Completed:
    """Lists as distributions over n items, one per position of a corpus.

    Attributes:
        offsets, items: as in ``RankedLists``.
        logprobs: float64 [M], of the listed items.
        unlisted: float64 [n_positions], log-probability of each unlisted item; minus infinity where all are listed.
        entropy: float64 [n_positions], nats; zero where there is no list.
        within: int64 [n_positions], rank by which every item has come that is not as probable as an unlisted one.
        below: int64 [n_positions], listed items that are less probable than an unlisted one.
    """

    offsets: Int64s
    items: npt.NDArray[np.int32]
    logprobs: Float64s
    unlisted: Float64s
    entropy: Float64s
    within: Int64s
    below: Int64s


def complete(lists: RankedLists, n_items: int) -> Completed:
    """Complete ranked lists over a catalogue of ``n_items``."""
    lengths = np.diff(lists.offsets)
    there = np.flatnonzero(lengths)
    starts, length = lists.offsets[there], lengths[there]

    def total(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # One list at a time, so that a sum does not depend on which lists stand beside it.
        return np.add.reduceat(values, starts) if len(starts) else values[:0]

    held = total(np.exp(lists.logprobs))
    others = n_items - length
    wanted = np.where(others == 0, 1.0, np.minimum(held, 1 - SMALLEST_REST))
    scale = np.where(wanted == held, 1.0, wanted / np.maximum(held, np.finfo(np.float64).tiny))
    logprobs = lists.logprobs + np.repeat(np.log(scale), length)
    rest = np.where(others == 0, 0.0, 1 - wanted)
    share = np.log(rest, where=rest > 0, out=np.full(len(rest), -np.inf)) - np.log(np.maximum(others, 1))
    surprise = total(np.exp(logprobs) * -logprobs) - rest * np.where(rest > 0, share, 0.0)
    of_share = np.repeat(share, length)
    above, below = total((logprobs > of_share).astype(np.int64)), total((logprobs < of_share).astype(np.int64))

    def spread(values: npt.NDArray[Any], elsewhere: float) -> npt.NDArray[Any]:
        everywhere = np.full(len(lengths), elsewhere, values.dtype)
        everywhere[there] = values
        return everywhere

    return Completed(
        offsets=lists.offsets,
        items=lists.items,
        logprobs=logprobs,
        unlisted=spread(share, -np.inf),
        entropy=spread(np.maximum(surprise, 0.0), 0.0),
        within=spread(np.where(below > 0, n_items, above), 0),
        below=spread(below, 0),
    )


class ListLabeller:
    """Labels of a domain from ranked lists; nothing of it is served, so it has no vectors and no states."""

    vectors: tuple[()] = ()

    def __init__(self, lists: RankedLists, corpus: Corpus, settings: LabelSettings) -> None:
        """Complete the lists.

        Raises:
            UserError: a position that is to be labelled has no list, and such positions are not to be skipped.
        """
        _refuse_missing(lists, corpus, settings)
        self._corpus, self._settings = corpus, settings
        self._completed = complete(lists, corpus.n_items)

    def block(self, shard: Shard) -> LabelBlock:
        """Return the labels of a shard's positions that have a list, in order, as they are stored (rounded)."""
        corpus, completed = self._corpus, self._completed
        at = corpus.positions(shard.first, shard.last)
        place = _places(corpus, at)
        labelled = asked(at, self._settings) & (np.diff(completed.offsets)[place] > 0)
        at, place = selected(at, labelled), place[labelled]
        k = min(self._settings.top_k, corpus.n_items)
        found = [
            _rows(completed, place[rows], at.target[rows], k, corpus.n_items) for rows in _blocks(completed, place, k)
        ]
        items, logprobs, target_logprob, target_rank = map(np.concatenate, zip(*found, strict=True))
        return LabelBlock(
            user=at.user,
            position=at.position,
            split=at.split,
            target=at.target,
            items=items.astype(np.int32),
            logprobs=ROUNDINGS[self._settings.precision](logprobs),
            # The scores are log-probabilities already.
            logsumexp=np.zeros(len(at), np.float32),
            kept_mass=np.exp(logprobs).sum(1).clip(max=1.0).astype(np.float32),
            target_logprob=target_logprob.astype(np.float32),
            target_rank=target_rank.astype(np.int32),
            entropy=completed.entropy[place].astype(np.float32),
            state=None,
        )

    def facts(self) -> Mapping[str, Any]:
        """Return how items that are not stored are scored; there is no network to count or to time."""
        corpus = self._corpus
        wanted = asked(corpus.positions(), self._settings)
        return {
            REST: UNIFORM,
            LISTED_WITHIN: int(self._completed.within[wanted].max(initial=0)),
            UNLISTED_FIRST: int((self._completed.below[wanted] > 0).sum()),
            "parameters": None,
            "ms_per_1000_users": None,
        }


def _refuse_missing(lists: RankedLists, corpus: Corpus, settings: LabelSettings) -> None:
    at = corpus.positions()
    wanted = asked(at, settings)
    missing = np.flatnonzero(wanted & (np.diff(lists.offsets) == 0))
    splits = ", ".join(settings.splits)
    if len(missing) and not lists.skip_missing:
        first = missing[0]
        user = corpus.user_ids[int(at.user[first])].as_py()
        raise UserError(
            f"{lists.source}: {len(missing):,} of the {int(wanted.sum()):,} positions of {splits} have no list, first "
            f"of user {user!r}, position {at.position[first]} ({SPLITS[at.split[first]]}); add them, leave their split "
            "out of labels.splits, or give the teacher `missing: skip`"
        )
    if len(missing) == wanted.sum():
        raise UserError(f"{lists.source}: no position of {splits} has a list; add lists, or change labels.splits")


def _places(corpus: Corpus, at: Positions) -> Int64s:
    places: Int64s = corpus.position_offsets[at.user] + at.position - 1
    return places


def _blocks(completed: Completed, place: Int64s, k: int) -> Iterator[slice]:
    longest = int((completed.offsets[place + 1] - completed.offsets[place]).max(initial=1))
    rows = max(CELLS_PER_BLOCK // (longest + k), 1)
    for first in range(0, max(len(place), 1), rows):
        yield slice(first, first + rows)


def _rows(
    completed: Completed, place: Int64s, target: npt.NDArray[np.int32], k: int, n_items: int
) -> tuple[npt.NDArray[np.int32], Float64s, Float64s, Int64s]:
    """Return the k best items and their log-probabilities [B, k], log-probability and rank of the target [B]."""
    start, length = completed.offsets[place], np.diff(completed.offsets)[place]
    index = np.arange(int(length.max(initial=0)))
    real = index < length[:, None]
    at = np.where(real, start[:, None] + index, 0)
    # Padding stands behind every item of the catalogue and is less probable.
    items = np.where(real, completed.items[at], n_items + len(index))
    logprobs = np.where(real, completed.logprobs[at], -np.inf)
    unlisted = completed.unlisted[place]

    fillers = _first_unlisted(items, k)
    filled = np.where(fillers < n_items, unlisted[:, None], -np.inf)
    codes, values = np.concatenate([items, fillers], 1), np.concatenate([logprobs, filled], 1)
    best = np.lexsort((codes, -values), axis=1)[:, :k]

    own = items == target[:, None]
    listed = own.any(1)
    truth = np.where(listed, np.where(own, logprobs, 0.0).sum(1), unlisted)
    ahead = (logprobs > truth[:, None]) | ((logprobs == truth[:, None]) & (items < target[:, None]))
    lower = target - (items < target[:, None]).sum(1)
    tied = np.where(unlisted == truth, lower, 0)
    rank = 1 + ahead.sum(1) + np.where(unlisted > truth, n_items - length, tied)
    return np.take_along_axis(codes, best, 1), np.take_along_axis(values, best, 1), truth, rank


def _first_unlisted(items: npt.NDArray[np.int32], k: int) -> Int64s:
    """Return the k lowest codes that a row lacks, int64 [B, k]; they may exceed the catalogue.

    The row's codes in ascending order are s_0 < s_1 < ...; s_i has s_i - i lacking codes below it, so the lacking code
    with j others below it is j + #{i: s_i - i <= j}.
    """
    rows = len(items)
    lacking_below = np.minimum(np.sort(items, 1) - np.arange(items.shape[1]), k)
    cells = np.arange(rows)[:, None] * (k + 1) + lacking_below
    passed = np.bincount(cells.ravel(), minlength=rows * (k + 1)).reshape(rows, k + 1).cumsum(1)[:, :k]
    return np.arange(k) + passed
