"""Rank of each target among the whole catalogue, without ever holding users x items."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from ckd.stages.evaluate.metrics import metrics
from ckd.storage.corpus import HELD_OUT, Corpus

Scorer = Callable[[npt.NDArray[np.int32], npt.NDArray[np.int32]], torch.Tensor]
"""(user codes [n], history lengths [n]) -> scores [n, n_items]; the history is the user's first items."""

ROWS_PER_BLOCK = 512
SCORES_PER_BLOCK = 1 << 25
"""Scores that are held at a time, 128 MiB of float32; above 65,536 items that means fewer users."""


def rank_targets(
    scorer: Scorer,
    corpus: Corpus,
    split: str,
    mask_history: bool = False,
    rows_per_block: int | None = None,
) -> npt.NDArray[np.int32]:
    """Return the rank of each user's held-out target in the full ranking, int32 [n_users], 1 is best.

    An item that scores as high as the target ranks before it: ties count against the model, so that a model that
    gives every item one score gets the worst rank and not the best.

    Args:
        scorer: gives the scores of a block of users.
        corpus: the domain.
        split: ``valid`` or ``test``.
        mask_history: take the items of the history out of the ranking, except the target itself.
        rows_per_block: users scored at a time; as many as memory is meant for by default.
    """
    if rows_per_block is None:
        rows_per_block = users_per_block(corpus.n_items)
    held_out = {"valid": HELD_OUT, "test": 1}[split]
    position = (corpus.lengths - held_out).astype(np.int32)
    target = corpus.sequence[corpus.offsets[:-1] + position]
    ranks = np.empty(corpus.n_users, np.int32)
    for start in range(0, corpus.n_users, rows_per_block):
        users = np.arange(start, min(start + rows_per_block, corpus.n_users), dtype=np.int32)
        scores = scorer(users, position[users])
        if mask_history:
            scores = without_history(scores, corpus, users, position[users], target[users])
        ranks[users] = pessimistic_rank(scores, torch.from_numpy(target[users]).to(scores.device)).cpu().numpy()
    return ranks


def users_per_block(n_items: int) -> int:
    """Return how many users are scored at a time."""
    return max(1, min(ROWS_PER_BLOCK, SCORES_PER_BLOCK // n_items))


def validation_ndcg(scorer: Scorer, corpus: Corpus, mask_history: bool = False) -> float:
    """Return NDCG@10 on the validation targets: what the epoch of a network is chosen by."""
    return metrics(rank_targets(scorer, corpus, "valid", mask_history), [10])["ndcg@10"]


def pessimistic_rank(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return 1 + the number of other items that score at least as high as the target, int64 [n].

    A target whose score is NaN ranks last.
    """
    own = scores.gather(1, target.long().unsqueeze(1))
    return (~(scores < own)).sum(1)


def without_history(
    scores: torch.Tensor,
    corpus: Corpus,
    users: npt.NDArray[np.int32],
    position: npt.NDArray[np.int32],
    target: npt.NDArray[np.int32] | None = None,
) -> torch.Tensor:
    """Return scores [n, n_items] with minus infinity for the items of each user's history.

    Args:
        scores: they stay as they are.
        corpus: the domain.
        users: int32 [n].
        position: int32 [n], lengths of their histories.
        target: int32 [n], items that keep their scores even if they are in the history.
    """
    rows = np.repeat(np.arange(len(users)), position)
    seen = np.concatenate([corpus.sequence_of(user)[:length] for user, length in zip(users, position, strict=True)])
    if target is not None:
        others = seen != np.repeat(target, position)
        rows, seen = rows[others], seen[others]
    # A copy: the scores of an inference pass cannot be changed in place, and they are the scorer's own.
    masked = scores.clone()
    masked[torch.from_numpy(rows), torch.from_numpy(seen).long()] = -torch.inf
    return masked
