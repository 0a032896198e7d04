"""The UniSRec network (arXiv 2206.05941, sections 2.1 and 2.2; names of tensors as in the authors' checkpoints).

text vector -> mixture-of-experts adaptor -> item vector (+ item ID) + position -> LayerNorm -> causal Transformer.
A sequence is right-padded; with causal attention no real position ever sees the padding, so no padding mask is needed.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ckd.stages.teachers.unisrec import NetworkSettings

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "swish": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
_INIT_STD = 0.02


class Expert(nn.Module):
    """Parametric whitening: ``(dropout(x) - bias) W^T`` (paper, equation 2)."""

    def __init__(self, text_dimensions: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.bias = nn.Parameter(torch.zeros(text_dimensions))
        self.lin = nn.Linear(text_dimensions, hidden, bias=False)
        nn.init.normal_(self.lin.weight, std=_INIT_STD)

    def forward(self, text: Tensor) -> Tensor:
        """[..., p] -> [..., d]."""
        whitened: Tensor = self.lin(self.dropout(text) - self.bias)
        return whitened


class Adaptor(nn.Module):
    """Mixture of experts with dense softmax gates, noisy in training (paper, equations 3 and 4)."""

    def __init__(self, text_dimensions: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.w_gate = nn.Parameter(torch.zeros(text_dimensions, settings.experts))
        self.w_noise = nn.Parameter(torch.zeros(text_dimensions, settings.experts))
        self.experts = nn.ModuleList(
            Expert(text_dimensions, settings.hidden, settings.adaptor_dropout) for _ in range(settings.experts)
        )

    def gates(self, text: Tensor) -> Tensor:
        """[..., p] -> [..., E], each row sums to one."""
        logits = text @ self.w_gate
        if self.training:
            logits = logits + torch.randn_like(logits) * (F.softplus(text @ self.w_noise) + 0.01)
        return logits.softmax(-1)

    def forward(self, text: Tensor) -> Tensor:
        """[..., p] -> [..., d]."""
        gates = self.gates(text).unbind(-1)
        return torch.stack([g.unsqueeze(-1) * e(text) for g, e in zip(gates, self.experts, strict=True)]).sum(0)


class SelfAttention(nn.Module):
    """Causal multi-head attention with residual connection and LayerNorm behind it."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        d = settings.hidden
        self.heads, self.attention_dropout = settings.heads, settings.attention_dropout
        self.query, self.key, self.value, self.dense = (nn.Linear(d, d) for _ in range(4))
        self.out_dropout = nn.Dropout(settings.hidden_dropout)
        self.LayerNorm = nn.LayerNorm(d, eps=settings.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, d] -> [B, L, d]."""
        q, k, v = (self._split(project(x)) for project in (self.query, self.key, self.value))
        dropout = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        merged = mixed.transpose(1, 2).flatten(2)
        normed: Tensor = self.LayerNorm(self.out_dropout(self.dense(merged)) + x)
        return normed

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Position-wise feed-forward layer with residual connection and LayerNorm behind it."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.dense_1 = nn.Linear(settings.hidden, settings.inner)
        self.dense_2 = nn.Linear(settings.inner, settings.hidden)
        self.activation = _ACTIVATIONS[settings.activation]
        self.dropout = nn.Dropout(settings.hidden_dropout)
        self.LayerNorm = nn.LayerNorm(settings.hidden, eps=settings.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, d] -> [B, L, d]."""
        normed: Tensor = self.LayerNorm(self.dropout(self.dense_2(self.activation(self.dense_1(x)))) + x)
        return normed


class Block(nn.Module):
    """One Transformer layer."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.multi_head_attention = SelfAttention(settings)
        self.feed_forward = FeedForward(settings)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, d] -> [B, L, d]."""
        fed: Tensor = self.feed_forward(self.multi_head_attention(x))
        return fed


class Encoder(nn.Module):
    """The stack of Transformer layers, named as in the authors' checkpoints."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Block(settings) for _ in range(settings.layers))

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, d] -> [B, L, d]."""
        for block in self.layer:
            x = block(x)
        return x


class UniSRec(nn.Module):
    """The whole network.

    Args:
        settings: sizes, activation, eps, temperature, dropout.
        text_dimensions: p, width of the text vectors.
        n_items: rows of the item ID table (transductive), or None (inductive).
    """

    def __init__(self, settings: NetworkSettings, text_dimensions: int, n_items: int | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.position_embedding = nn.Embedding(settings.max_length, settings.hidden)
        self.trm_encoder = Encoder(settings)
        self.LayerNorm = nn.LayerNorm(settings.hidden, eps=settings.layer_norm_eps)
        self.dropout = nn.Dropout(settings.hidden_dropout)
        self.item_embedding = nn.Embedding(n_items, settings.hidden) if n_items else None
        self.apply(_initialise)
        self.moe_adaptor = Adaptor(text_dimensions, settings)

    def item_table(self, text: Tensor, codes: Tensor | None = None) -> Tensor:
        """Return item vectors before normalisation, [n, d]: the adapted text, plus the ID row where there is one.

        Args:
            text: [n, p] text vectors.
            codes: int64 [n] of the items the rows belong to; all items in order by default.
        """
        table: Tensor = self.moe_adaptor(text)
        if self.item_embedding is None:
            return table
        ids = self.item_embedding.weight if codes is None else self.item_embedding(codes)
        return table + ids

    def encode(self, items: Tensor) -> Tensor:
        """[B, L, d] item vectors, oldest first, right-padded with anything -> [B, L, d] sequence vectors.

        The vector at index t stands for the history of the first t + 1 items. L must not exceed ``max_length``.
        """
        x = items + self.position_embedding.weight[: items.shape[1]]
        encoded: Tensor = self.trm_encoder(self.dropout(self.LayerNorm(x)))
        return encoded


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_INIT_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
