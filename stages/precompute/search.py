"""Exact top-k and normaliser over the whole catalogue, by blocks: users x items is never held.

Scores are products in float64 rounded to float32. The rounding makes items with equal vectors tie exactly, wherever
they stand in a block, and ties are broken by item code, so the result does not depend on the blocks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ckd.stages.best_items import top_k

POSITIONS_PER_BLOCK = 512
ITEMS_PER_BLOCK = 32_768


@dataclass(frozen=True)
class Distribution:
    """What is kept of the softmax over the catalogue at N positions.

    Attributes:
        items: int32 [N, k], best first.
        scores: float32 [N, k], raw scores of these items.
        logsumexp: float64 [N].
        entropy: float64 [N], nats.
        target_score: float32 [N].
        target_rank: int32 [N], 1 is best.
    """

    items: Tensor
    scores: Tensor
    logsumexp: Tensor
    entropy: Tensor
    target_score: Tensor
    target_rank: Tensor


def search(
    queries: Tensor,
    vectors: Tensor,
    target: Tensor,
    k: int,
    items_per_block: int = ITEMS_PER_BLOCK,
    positions_per_block: int = POSITIONS_PER_BLOCK,
) -> Distribution:
    """Score every item at every position and keep the k best and the normaliser.

    Args:
        queries: float64 [N, d].
        vectors: float64 [n_items, d], row = item code.
        target: int64 [N], item that really followed.
        k: items kept; at most n_items.
        items_per_block, positions_per_block: bound the memory.
    """
    blocks = [
        _search_block(q, vectors, t, k, items_per_block)
        for q, t in zip(queries.split(positions_per_block), target.split(positions_per_block), strict=True)
    ]
    return Distribution(*(torch.cat(parts) for parts in zip(*(vars(b).values() for b in blocks), strict=True)))


def _search_block(queries: Tensor, vectors: Tensor, target: Tensor, k: int, items_per_block: int) -> Distribution:
    target_score = (queries * vectors[target]).sum(1).float()
    own, wanted = target_score.unsqueeze(1), target.unsqueeze(1)
    best_scores = queries.new_empty((len(queries), 0), dtype=torch.float32)
    best_items = target.new_empty((len(queries), 0))
    normalisers, expectations = [], []
    rank = torch.ones_like(target)
    for first in range(0, len(vectors), items_per_block):
        scores = (queries @ vectors[first : first + items_per_block].T).float()
        codes = torch.arange(first, first + scores.shape[1], device=scores.device)
        ahead = (scores > own) | ((scores == own) & (codes < wanted))
        rank += (ahead & (codes != wanted)).sum(1)
        exact = scores.double()
        normalisers.append(exact.logsumexp(1))
        expectations.append((exact * (exact - normalisers[-1].unsqueeze(1)).exp()).sum(1))
        block_scores, block_items = top_k(scores, min(k, scores.shape[1]))
        best_scores = torch.cat([best_scores, block_scores], 1)
        best_items = torch.cat([best_items, block_items + first], 1)
        # Stable: what came from an earlier block has the lower codes and stays ahead of its equals.
        best_scores, order = best_scores.sort(dim=1, descending=True, stable=True)
        best_scores, best_items = best_scores[:, :k], best_items.gather(1, order)[:, :k]
    per_block = torch.stack(normalisers, 1)
    logsumexp = per_block.logsumexp(1)
    shares = (per_block - logsumexp.unsqueeze(1)).exp()
    entropy = logsumexp - (shares * torch.stack(expectations, 1)).sum(1)
    return Distribution(best_items.int(), best_scores, logsumexp, entropy, target_score, rank.int())
