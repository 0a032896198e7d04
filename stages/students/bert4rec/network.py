"""The BERT4Rec network (arXiv 1904.06690, section 3): a bidirectional Transformer that tells masked items.

It is served a history with ``[MASK]`` behind it and says what stands there. It is trained on just that, for a label
belongs to one history end: each served sequence gives some of its ends, drawn anew every epoch, and each end is one row
of the network's input. The items of the history that are masked beside it are the paper's Cloze task; what they were is
known from the truth alone, so they are losses of the student's own (``Step.own``).

A sequence of n positions is n rows here, where a causal network needs one. Most sequences are short, and scoring the
catalogue costs both networks the same per position, so ``ends`` is as many as most sequences have: with one end per
sequence the labels of an epoch would be a fraction of SASRec's, and a BERT4Rec that is trained too little is known to
look worse than it is (arXiv 2207.02991).

Where it leaves the paper: places are counted back from ``[MASK]``, so that the last item is at the same place in
every history, as left padding has it; the paper masks only the last item in a further pass over the data, here every
row has a mask at its end; and the loss is softmax over all items, not sampled, the part of BERT4Rec that makes
it strong (arXiv 2308.07192). The layers start wider than BERT's, values and output as the identity.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ckd.stages.batching import TrainingWindows, at, length_groups, padded, pass_cost, real_positions
from ckd.stages.students.attention import INIT_STD, Block, initialise
from ckd.stages.students.bert4rec import Settings
from ckd.stages.students.contract import Domain, Step
from ckd.stages.students.scores import DotScores
from ckd.stages.students.sequence import HistoryStudent

Int64s = npt.NDArray[np.int64]


class BERT4Rec(HistoryStudent):
    """Item vectors are shared by input and output; the output has a bias of each item, its last column."""

    def __init__(self, settings: Settings, n_items: int) -> None:
        super().__init__()
        d = settings.hidden
        self.max_length, self.mask_share, self.ends = settings.max_length, settings.mask_share, settings.ends
        self.items = nn.Embedding(n_items, d)
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.mask = nn.Parameter(torch.empty(d).normal_(std=INIT_STD))
        self.positions = nn.Embedding(settings.max_length + 1, d)
        self.norm, self.head_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(d, settings.heads, settings.dropout) for _ in range(settings.blocks))
        self.head = nn.Linear(d, d)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        # An answer comes through attention alone, no residual carries an item to it. With BERT's small weights it
        # stays at the items' popularity for many epochs; here it starts as a mean of the history's items.
        self.apply(initialise)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
        nn.init.eye_(self.head.weight)
        for module in self.modules():
            if isinstance(module, Block):
                nn.init.eye_(module.project_in.weight[-len(self.mask) :])
                nn.init.eye_(module.project_out.weight)

    def encode(self, items: Tensor, ends: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return what the network makes of every place and of the ``[MASK]`` behind each history.

        Args:
            items: int64 [B, L], rows of items, oldest first, right-padded with anything.
            ends: int64 [B], index of the last item of each.
            hidden: bool [B, L], items that are masked; None is none.

        Returns:
            float32 [B, L + 1, d + 1]; the history's own answer is at ``ends + 1``.
        """
        index = torch.arange(items.shape[1] + 1, device=items.device)
        back = (ends + 1).unsqueeze(1) - index
        masked = back == 0
        if hidden is not None:
            masked = masked | F.pad(hidden, (0, 1))
        x = torch.where(masked.unsqueeze(2), self.mask, self.items(F.pad(items, (0, 1))))
        x = self.dropout(self.norm(x + self.positions(back.clamp(min=0))))
        for block in self.blocks:
            x = block(x, back >= 0)
        # The last column meets the items' bias.
        return F.pad(self.head_norm(F.gelu(self.head(x))), (0, 1), value=1.0)

    def item_vectors(self) -> Tensor:
        """Return float32 [n_items, d + 1]."""
        return torch.cat([self.items.weight, self.bias.unsqueeze(1)], 1)

    def query(self, items: Tensor, ends: Tensor) -> Tensor:
        """Return float32 [B, d + 1], the answer at the ``[MASK]`` behind each history."""
        return at(self.encode(items, ends), ends + 1)

    def position_weights(self, length: int) -> npt.NDArray[np.float64]:
        """Return how likely an epoch is to teach each position of a sequence, float64 [length]: all alike."""
        return np.full(length, self.ends / max(self.ends, length))

    def step(self, domain: Domain, served: TrainingWindows, draw: np.random.Generator) -> Step:
        """Score some history ends of each sequence and the items masked within; in evaluation mode none are."""
        corpus, items = domain.corpus, self.item_vectors()[domain.items]
        row, end = drawn_ends(served.length, self.ends, draw)
        codes, real = padded(corpus.sequence, served.start[row], end + 1), real_positions(end + 1)
        share = self.mask_share if self.training else 0.0
        chosen = torch.from_numpy(real & (draw.random(real.shape) < share))
        states, own = [], []
        groups = length_groups(end + 1, pass_cost(items.device))
        for rows in groups:
            longest = int(end[rows].max()) + 1
            group, hidden = (values[rows, :longest].to(items.device) for values in (codes, chosen))
            ends = torch.from_numpy(end[rows]).to(items.device)
            read = self.encode(group + domain.first, ends, hidden)
            states.append(at(read, ends + 1))
            own.append(F.cross_entropy(read[:, :-1][hidden] @ items.T, group[hidden], reduction="none"))
        order = np.concatenate(groups)
        row, end = row[order], end[order]
        place = corpus.position_offsets[served.user[row]] + served.position[row] - 1 + end
        target = corpus.sequence[served.start[row] + end + 1].astype(np.int64)
        return Step(
            torch.from_numpy(place).to(items.device),
            torch.from_numpy(target).to(items.device),
            DotScores(torch.cat(states), items),
            own=torch.cat(own),
        )


def drawn_ends(length: Int64s, most: int, draw: np.random.Generator) -> tuple[Int64s, Int64s]:
    """Return some distinct indices of each sequence, all of them where it has no more than ``most``.

    Returns:
        int64 [R], the sequence of each, and int64 [R], the index, below the sequence's length.
    """
    index = np.arange(int(length.max()))
    key = np.where(index < length[:, None], draw.random((len(length), len(index))), 2.0)
    first = np.argsort(key, axis=1)[:, :most]
    row, column = np.nonzero(np.arange(first.shape[1]) < length[:, None])
    return row, first[row, column]
