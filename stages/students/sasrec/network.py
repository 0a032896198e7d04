"""The SASRec network (arXiv 1808.09781, section 3) with post-norm residual blocks and a GELU feed-forward layer.

Where it leaves the paper: the layers are normalised behind the residual sum, as most later implementations do, the
feed-forward layer is four times as wide as the rest, and training is full softmax (in the trainer), which is what
makes a SASRec a strong baseline (arXiv 2309.07602).
"""

from torch import Tensor, nn

from ckd.stages.students.attention import Block, initialise
from ckd.stages.students.sasrec import Sizes
from ckd.stages.students.sequence import SequenceStudent


class SASRec(SequenceStudent):
    """Item vectors are shared by input and output."""

    def __init__(self, settings: Sizes, n_items: int) -> None:
        super().__init__()
        d = settings.hidden
        self.max_length = settings.max_length
        self.items = nn.Embedding(n_items, d)
        self.positions = nn.Embedding(settings.max_length, d)
        self.norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(d, settings.heads, settings.dropout) for _ in range(settings.blocks))
        self.apply(initialise)

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
