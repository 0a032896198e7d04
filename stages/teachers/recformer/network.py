"""The Recformer network (arXiv 2305.13731, section 2.3): a Longformer over four summed embeddings; its tensors have the
names of the authors' checkpoints.

Attention (Longformer, arXiv 2004.05150, section 3): a token sees those at most half a window away and the first one.
The first one is global: it sees all, through projections of its own. Two exact rearrangements make this fast:

- The global row needs no keys and values of its own at every token: ``q . (W x) = (W^T q) . x`` and
  ``sum p (W x) = W (sum p x)``, so two products of a width-by-width matrix with every token become a few vectors per
  head.
- Only the first token is read from the last layer, so nothing else of that layer is computed.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from ckd.stages.teachers.recformer.attention import windowed_attention
from ckd.stages.teachers.recformer.config import RecformerConfig
from ckd.stages.teachers.recformer.tokens import PAD, Inputs


class Embeddings(nn.Module):
    """Word, token position, token type and item position, summed."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        d = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, d)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, d)
        self.token_type_embeddings = nn.Embedding(config.token_type_size, d)
        self.item_position_embeddings = nn.Embedding(config.max_item_embeddings, d)
        self.LayerNorm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, inputs: Inputs) -> Tensor:
        """[B, L] -> [B, L, d]."""
        # Tokens are counted from PAD + 1; padding, and a pad token inside a text, stands at PAD itself.
        counted = (inputs.ids != PAD).long()
        position = counted.cumsum(1) * counted + PAD
        summed = (
            self.word_embeddings(inputs.ids)
            + self.position_embeddings(position)
            + self.token_type_embeddings(inputs.types)
            + self.item_position_embeddings(inputs.item_position)
        )
        embedded: Tensor = self.dropout(self.LayerNorm(summed))
        return embedded


class SelfAttention(nn.Module):
    """The projections of one layer, local and global."""

    def __init__(self, config: RecformerConfig, window: int) -> None:
        super().__init__()
        d = config.hidden_size
        self.heads, self.window, self.dropout_share = (
            config.num_attention_heads,
            window,
            config.attention_probs_dropout_prob,
        )
        self.query, self.key, self.value = (nn.Linear(d, d) for _ in range(3))
        self.query_global, self.key_global, self.value_global = (nn.Linear(d, d) for _ in range(3))

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """[B, L, d], bool [B, L] -> [B, L, d]."""
        q, k, v = (self._split(project(x)) for project in (self.query, self.key, self.value))
        mixed = windowed_attention(q, k, v, real, self.window // 2, self._dropout())
        local = mixed.transpose(1, 2).flatten(2)
        return torch.cat([self.first(x, real), local[:, 1:]], 1)

    def first(self, x: Tensor, real: Tensor) -> Tensor:
        """Return the first token's row alone: [B, L, d], bool [B, L] -> [B, 1, d]."""
        heads = self.heads
        query = self.query_global(x[:, 0]).unflatten(-1, (heads, -1)) / math.sqrt(x.shape[-1] // heads)
        # The key's bias adds the same to every logit, which softmax does not see.
        asked = torch.einsum("bad,adh->bah", query, self.key_global.weight.unflatten(0, (heads, -1)).to(query.dtype))
        logits = at_least_float32(asked @ x.transpose(1, 2))
        weights = logits.masked_fill(~real.unsqueeze(1), -torch.inf).softmax(-1).to(x.dtype)
        weights = F.dropout(weights, self._dropout(), self.training)
        values = self.value_global.weight.unflatten(0, (heads, -1)).to(x.dtype)
        mixed = torch.einsum("bah,adh->bad", weights @ x, values)
        bias = self.value_global.bias.to(x.dtype).unflatten(0, (heads, -1)) * weights.sum(-1, keepdim=True)
        return (mixed + bias).flatten(1).unsqueeze(1)

    def _dropout(self) -> float:
        return self.dropout_share if self.training else 0.0

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Projection(nn.Module):
    """A dense layer, dropout, and LayerNorm behind the residual sum."""

    def __init__(self, width: int, config: RecformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """[..., width], [..., d] -> [..., d]."""
        normed: Tensor = self.LayerNorm(self.dropout(self.dense(x)) + residual)
        return normed


class Attention(nn.Module):
    """Self-attention and what is behind it."""

    def __init__(self, config: RecformerConfig, window: int) -> None:
        super().__init__()
        # In the authors' files it is called `self`.
        self.add_module("self", SelfAttention(config, window))
        self.output = Projection(config.hidden_size, config)

    @property
    def projections(self) -> SelfAttention:
        """The module that is named ``self``."""
        found = self.get_submodule("self")
        assert isinstance(found, SelfAttention)
        return found


class Intermediate(nn.Module):
    """The widening dense layer of the feed-forward block."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation: Callable[[Tensor], Tensor] = ACT2FN[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., inner]."""
        return self.activation(self.dense(x))


class Layer(nn.Module):
    """One Longformer layer, post-norm."""

    def __init__(self, config: RecformerConfig, window: int) -> None:
        super().__init__()
        self.attention = Attention(config, window)
        self.intermediate = Intermediate(config)
        self.output = Projection(config.intermediate_size, config)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """[B, L, d], bool [B, L] -> [B, L, d]."""
        return self._behind(self.attention.projections(x, real), x)

    def first(self, x: Tensor, real: Tensor) -> Tensor:
        """Return the first token's row alone, [B, 1, d]."""
        return self._behind(self.attention.projections.first(x, real), x[:, :1])

    def _behind(self, mixed: Tensor, x: Tensor) -> Tensor:
        attended = self.attention.output(mixed, x)
        fed: Tensor = self.output(self.intermediate(attended), attended)
        return fed


class Encoder(nn.Module):
    """The stack of layers, named as in the authors' checkpoints."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config, window) for window in config.attention_window)


class Recformer(nn.Module):
    """Tokens to the vector at ``<s>``."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.apply(lambda module: initialise(module, config.initializer_range))

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the vectors at ``<s>``, [B, d], not normalised."""
        x = self.embeddings(inputs)
        for layer in self.encoder.layer[:-1]:
            x = layer(x, inputs.real)
        last = self.encoder.layer[-1]
        assert isinstance(last, Layer)
        return last.first(x, inputs.real)[:, 0]

    def hidden_states(self, inputs: Inputs) -> list[Tensor]:
        """Return the embeddings and the output of every layer at every token, [B, L, d] each; junk at padding."""
        states = [self.embeddings(inputs)]
        for layer in self.encoder.layer:
            states.append(layer(states[-1], inputs.real))
        return states


class LanguageHead(nn.Module):
    """Token vectors to logits over the vocabulary; its decoder is not tied to the word embeddings."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        self.apply(lambda module: initialise(module, config.initializer_range))

    def forward(self, x: Tensor) -> Tensor:
        """[N, d] -> [N, vocabulary]. The activation is GELU, whatever the encoder's is."""
        logits: Tensor = self.decoder(self.layer_norm(F.gelu(self.dense(x))))
        return logits


def initialise(module: nn.Module, std: float) -> None:
    """Draw weights from N(0, std), as the authors' networks start."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def unit(vectors: Tensor) -> Tensor:
    """Return vectors [..., d] scaled to length one, in float32 or more."""
    return F.normalize(at_least_float32(vectors), dim=-1, eps=1e-8)


def cosine_scores(queries: Tensor, items: Tensor, temperature: float) -> Tensor:
    """Return cosine / tau of every query with every item, [B, d], [n, d] -> [B, n] (paper, equation 6).

    Not in bfloat16, also under autocast: divided by tau its rounding would be as large as what tells items apart.
    """
    with torch.autocast(queries.device.type, enabled=False):
        return unit(queries) @ unit(items).T / temperature


def at_least_float32(x: Tensor) -> Tensor:
    """Return a tensor of half precision in float32, any other one as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
