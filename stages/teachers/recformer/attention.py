"""Attention within a window and to the first token."""

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 2
"""Queries of a block, in half windows."""
DENSE_UP_TO = 12
"""Half windows per sequence up to which a masked dense product is faster than cutting into blocks; measured by
``benchmarks/recformer``."""


def windowed_attention(q: Tensor, k: Tensor, v: Tensor, real: Tensor, reach: int, dropout: float = 0.0) -> Tensor:
    """Return softmax attention of each token to those at most ``reach`` away and to the first one, [B, heads, L, d].

    Args:
        q, k, v: [B, heads, L, d].
        real: bool [B, L], keys that may be seen; the first one always may.
        reach: tokens to each side.
        dropout: share of the weights that are dropped.
    """
    if q.shape[2] <= DENSE_UP_TO * reach:
        return dense(q, k, v, real, reach, dropout)
    return in_blocks(q, k, v, real, reach, dropout)


def dense(q: Tensor, k: Tensor, v: Tensor, real: Tensor, reach: int, dropout: float) -> Tensor:
    """Compute every logit of :func:`windowed_attention` and mask those outside the window."""
    length = q.shape[2]
    if length <= reach + 1:
        seen = real[:, None, None, :]
    else:
        index = torch.arange(length, device=q.device)
        near = ((index[:, None] - index).abs() <= reach) | (index == 0)
        seen = near & real[:, None, None, :]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout)


def in_blocks(q: Tensor, k: Tensor, v: Tensor, real: Tensor, reach: int, dropout: float) -> Tensor:
    """Compute :func:`windowed_attention` by blocks of queries, each with the keys that it can reach and the first one.

    The work grows with the length, not with its square.
    """
    batch, _, length, _ = q.shape
    size = BLOCK * reach
    span = size + 2 * reach
    blocks = -(-length // size)
    missing = blocks * size - length
    queries = F.pad(q, (0, 0, 0, missing)).unflatten(2, (blocks, size)).transpose(1, 2)
    around = (reach, reach + missing)
    keys, values = (
        torch.cat([_first(x, blocks), F.pad(x, (0, 0, *around)).unfold(2, span, size).permute(0, 2, 1, 4, 3)], 3)
        for x in (k, v)
    )  # [B, blocks, heads, 1 + span, d]
    near = (torch.arange(span, device=q.device) - torch.arange(size, device=q.device)[:, None] - reach).abs() <= reach
    # The first token comes in once, beside the window.
    inside = F.pad(real[:, 1:], (reach + 1, reach + missing)).unfold(1, span, size)  # [B, blocks, span]
    seen = F.pad(near & inside.unsqueeze(2), (1, 0), value=True)
    mixed = F.scaled_dot_product_attention(
        queries.flatten(0, 1),
        keys.flatten(0, 1),
        values.flatten(0, 1),
        attn_mask=seen.flatten(0, 1).unsqueeze(1),
        dropout_p=dropout,
    )
    return mixed.unflatten(0, (batch, blocks)).transpose(1, 2).flatten(2, 3)[:, :, :length]


def _first(x: Tensor, blocks: int) -> Tensor:
    """Return the first token's row for each block, [B, heads, L, d] -> [B, blocks, heads, 1, d]."""
    return x[:, None, :, :1].expand(-1, blocks, -1, -1, -1)
