"""The SASRec network (arXiv 1808.09781, section 3) with post-norm residual blocks and a GELU feed-forward layer.

Where it leaves the paper: the layers are normalised behind the residual sum, as most later implementations do, the
feed-forward layer is four times as wide as the rest, and training is full softmax (in the trainer), which is what
makes a SASRec a strong baseline (arXiv 2309.07602).
"""

from torch import Tensor, nn
from torch.nn import functional as F

from ckd.stages.students.sasrec import Sizes
from ckd.stages.students.sequence import SequenceStudent

_INIT_STD = 0.02
_WIDENING = 4


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each with residual sum and LayerNorm behind it."""

    def __init__(self, settings: Sizes) -> None:
        super().__init__()
        d = settings.hidden
        self.heads, self.dropout_share = settings.heads, settings.dropout
        self.project_in, self.project_out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.widen, self.narrow = nn.Linear(d, _WIDENING * d), nn.Linear(_WIDENING * d, d)
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, d] -> [B, L, d]."""
        q, k, v = self.project_in(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout_share if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        x = self.attention_norm(x + self.dropout(self.project_out(mixed.transpose(1, 2).flatten(2))))
        fed: Tensor = self.feed_forward_norm(x + self.dropout(self.narrow(F.gelu(self.widen(x)))))
        return fed


class SASRec(SequenceStudent):
    """Item vectors are shared by input and output."""

    def __init__(self, settings: Sizes, n_items: int) -> None:
        super().__init__()
        self.max_length = settings.max_length
        self.items = nn.Embedding(n_items, settings.hidden)
        self.positions = nn.Embedding(settings.max_length, settings.hidden)
        self.norm = nn.LayerNorm(settings.hidden)
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.blocks))
        self.apply(_initialise)

    def encode(self, items: Tensor) -> Tensor:
        """int64 [B, L] -> float32 [B, L, d]; right padding is never seen, attention being causal."""
        x = self.items(items) + self.positions.weight[: items.shape[1]]
        x = self.dropout(self.norm(x))
        for block in self.blocks:
            x = block(x)
        return x

    def item_vectors(self) -> Tensor:
        """Return float32 [n_items, d]."""
        return self.items.weight


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_INIT_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
