"""Self-attention over sequences of items, in the forms that several students share."""

from torch import Tensor, nn
from torch.nn import functional as F

INIT_STD = 0.02
_WIDENING = 4


def attend(projected: Tensor, heads: int, dropout: float, seen: Tensor | None = None) -> Tensor:
    """Return scaled dot-product attention, float [B, L, d].

    Args:
        projected: float [B, L, 3 d], queries, keys and values.
        heads: they divide d.
        dropout: of the attention weights.
        seen: bool [B, L], the places that every place attends to; None is causal: those up to its own.
    """
    q, k, v = projected.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    mask = None if seen is None else seen[:, None, None, :]
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=seen is None)
    return mixed.transpose(1, 2).flatten(2)


class Block(nn.Module):
    """Self-attention and a GELU feed-forward layer, each with residual sum and LayerNorm behind it.

    Args:
        d: width.
        heads: of the attention.
        dropout: of the attention weights and of what each layer adds.
    """

    def __init__(self, d: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout_share = heads, dropout
        self.project_in, self.project_out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.widen, self.narrow = nn.Linear(d, _WIDENING * d), nn.Linear(_WIDENING * d, d)
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """[B, L, d] -> [B, L, d]; ``seen`` as in :func:`attend`."""
        dropout = self.dropout_share if self.training else 0.0
        mixed = attend(self.project_in(x), self.heads, dropout, seen)
        x = self.attention_norm(x + self.dropout(self.project_out(mixed)))
        fed: Tensor = self.feed_forward_norm(x + self.dropout(self.narrow(F.gelu(self.widen(x)))))
        return fed


def initialise(module: nn.Module) -> None:
    """Give a linear layer or an embedding small normal weights, as BERT has them; for ``Module.apply``."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
