"""Attention within a window and to the first token."""

import torch
from torch import Tensor
from torch.nn import functional as F

DENSE_UP_TO = 16
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
    """Compute :func:`windowed_attention` by blocks of ``reach`` queries: each sees its own, both neighbours and the first.

    The work grows with the length, not with its square.
    """
    batch, heads, length, width = q.shape
    blocks = -(-length // reach)
    padded = blocks * reach - length
    queries = F.pad(q, (0, 0, 0, padded)).unflatten(2, (blocks, reach))
    # One block of padding before the first and, beside what fills up the last block, one behind it.
    around = (reach, reach + padded)
    keys, values = (
        F.pad(x, (0, 0, *around)).unfold(2, 3 * reach, reach).transpose(-1, -2) for x in (k, v)
    )  # [B, heads, blocks, 3 * reach, d]
    keys, values = (
        torch.cat([x[:, :, None, :1].expand(-1, -1, blocks, -1, -1), cut], 3) for x, cut in ((k, keys), (v, values))
    )
    index = torch.arange(reach, device=q.device)
    offset = torch.arange(3 * reach, device=q.device) - reach
    near = (offset - index[:, None]).abs() <= reach  # [reach, 3 * reach]
    # The first token comes in once, beside the window.
    inside = real.clone()
    inside[:, 0] = False
    inside = F.pad(inside, around).unfold(1, 3 * reach, reach)  # [B, blocks, 3 * reach]
    seen = F.pad(near & inside.unsqueeze(2), (1, 0), value=True)
    mixed = F.scaled_dot_product_attention(
        queries.transpose(1, 2).flatten(0, 1),
        keys.transpose(1, 2).flatten(0, 1),
        values.transpose(1, 2).flatten(0, 1),
        attn_mask=seen.flatten(0, 1).unsqueeze(1),
        dropout_p=dropout,
    )
    return mixed.unflatten(0, (batch, blocks)).transpose(1, 2).flatten(2, 3)[:, :, :length]
