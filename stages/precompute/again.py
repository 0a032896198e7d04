"""How far stored labels and those that a teacher gives now are the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ckd.storage.labels import LabelBlock

COARSE, FINE = {"bfloat16": 2.0**-6}, 2.0**-9
"""How far a stored number may be off, relative to the larger of it and 1, where labels were computed on another machine
or with another version of torch: two steps of float16, in which states are stored, one of `fixed`; in
bfloat16 eight times as far."""
FLIPPED = 0.1
"""Share of positions that may have other items, another order of them or another rank of the truth there. Last bits of
scores round some states to the next float16; that moves near ties at about one position in twenty."""


@dataclass(frozen=True)
class Agreement:
    """What was found of one teacher and domain.

    Attributes:
        positions: that were compared.
        unmatched: positions that are stored and not given now, or the other way round.
        identical: share of the positions at which every stored bit is the same.
        logprobs, logsumexp, states, vectors: largest absolute difference; None where there are none.
        off: the largest of these differences, relative to the larger of the stored number and 1.
        items: share of positions whose items, or their order, are others.
        ranks: share of positions at which the truth has another rank.
    """

    positions: int
    unmatched: int
    identical: float
    logprobs: float
    logsumexp: float
    states: float | None
    vectors: float | None
    off: float
    items: float
    ranks: float

    def holds(self, precision: str, same_machine: bool) -> bool:
        """Return whether stored labels are what the teacher says now: bit for bit on the machine that computed them."""
        if same_machine:
            return self.unmatched == 0 and self.identical == 1 and self.off == 0
        near = self.off <= COARSE.get(precision, FINE) and max(self.items, self.ranks) <= FLIPPED
        return self.unmatched == 0 and near


def agreement(
    stored: LabelBlock,
    now: LabelBlock,
    stored_vectors: Sequence[npt.NDArray[np.float32]],
    vectors: Sequence[npt.NDArray[np.float32]],
) -> Agreement:
    """Compare labels of the same users, and item vectors: those of all users' teacher, then those of each fold's."""
    _, left, right = np.intersect1d(_keys(stored), _keys(now), assume_unique=True, return_indices=True)
    unmatched = len(stored) + len(now) - 2 * len(left)
    stored, now = stored.take(left), now.take(right)
    pairs = {name: (value, vars(now)[name]) for name, value in vars(stored).items() if value is not None}
    same = np.ones(len(stored), dtype=bool)
    for old, new in pairs.values():
        same &= (old == new).reshape(len(old), -1).all(1)
    lists = [pairs[name] for name in ("logprobs", "target_logprob")]
    scalars, states = [pairs["logsumexp"]], [pairs["state"]] if "state" in pairs else []
    tables = list(zip(stored_vectors, vectors, strict=True))
    return Agreement(
        positions=len(stored),
        unmatched=unmatched,
        identical=_share(same, empty=1.0),
        logprobs=_largest(lists),
        logsumexp=_largest(scalars),
        states=_largest(states) if states else None,
        vectors=_largest(tables) if tables else None,
        off=_largest([*lists, *scalars, *states, *tables], relative=True),
        items=_share((stored.items != now.items).any(1)),
        ranks=_share(stored.target_rank != now.target_rank),
    )


def _keys(block: LabelBlock) -> npt.NDArray[np.int64]:
    return (block.user.astype(np.int64) << 32) | block.position


def _share(which: npt.NDArray[np.bool_], empty: float = 0.0) -> float:
    return float(which.mean()) if len(which) else empty


def _largest(pairs: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]], relative: bool = False) -> float:
    largest = 0.0
    for old, new in pairs:
        old64 = old.astype(np.float64)
        # Of two infinities the difference is none.
        difference = np.where(old == new, 0.0, np.abs(new.astype(np.float64) - old64))
        scale = np.maximum(np.abs(old64), 1.0) if relative else 1.0
        largest = max(largest, float(np.nan_to_num(difference / scale, nan=np.inf).max(initial=0.0)))
    return largest
