"""The GRU4Rec network (arXiv 1511.06939, section 3): a GRU over item embeddings.

Where it leaves the paper: items enter through an embedding, normalised, not one-hot; by default the same vectors score
them (the "constrained embedding" of the authors' second paper, arXiv 1706.03847, which found it better and smaller);
sequences are whole histories of users, read from their first item, so no state is carried from batch to batch; and
training is full softmax (in the trainer), of which the papers' TOP1 and BPR-max losses on sampled items are cheaper
stand-ins. Dropout is where the authors' own implementation has it, on the embeddings and behind each layer: leaving
it out is one of the faults that made re-implementations weak (arXiv 2307.14956).
"""

from torch import Tensor, nn

from ckd.stages.students.attention import INIT_STD
from ckd.stages.students.gru4rec import Settings
from ckd.stages.students.sequence import SequenceStudent


class GRU4Rec(SequenceStudent):
    """The state behind each item, projected to the width of the item vectors, is scored against them."""

    def __init__(self, settings: Settings, n_items: int) -> None:
        super().__init__()
        d, between = settings.hidden, settings.dropout if settings.layers > 1 else 0.0
        self.max_length = settings.max_length
        self.items = nn.Embedding(n_items, d)
        self.scored = None if settings.tied else nn.Embedding(n_items, d)
        self.norm = nn.LayerNorm(d)
        self.recurrent = nn.GRU(d, d, settings.layers, batch_first=True, dropout=between)
        self.project = nn.Linear(d, d)
        self.dropout = nn.Dropout(settings.dropout)
        for module in self.children():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=INIT_STD)

    def encode(self, items: Tensor) -> Tensor:
        """int64 [B, L] -> float32 [B, L, d]; right padding comes after all that is asked for."""
        states, _ = self.recurrent(self.dropout(self.norm(self.items(items))))
        encoded: Tensor = self.project(self.dropout(states))
        return encoded

    def item_vectors(self) -> Tensor:
        """Return float32 [n_items, d]."""
        return self.items.weight if self.scored is None else self.scored.weight
