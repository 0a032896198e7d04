"""The LightGCN network (arXiv 2002.02126, section 3.1) over the training graph of one domain.

**Graph.** A user's training items, all but the last two, are that user's edges, each once. Vectors go along the edges

    e_u' = sum_{i of u} e_i / sqrt(|u| |i|),    e_i' = sum_{u of i} e_u / sqrt(|u| |i|)

a number of times; a user's or an item's final vector is the mean over all steps, the start among them. The graph is
whole from the first epoch: a curriculum chooses whose positions are taught, not which edges there are.

**Loss.** Full softmax over the catalogue where the paper has BPR: a teacher's label is a distribution over items, which
only a normalised student can be compared with, and softmax losses rank better than BPR besides (arXiv 2201.02327).

**Positions of one user.** A user has one vector whatever the position, so the user's positions 1..n share one row of
scores, one distribution q. Position t counts w_t = recency^(n - t). Of teachers' distributions p_t

    sum_t w_t KL(p_t || q) = W KL(p || q) + sum_t w_t KL(p_t || p),    W = sum_t w_t,  p = sum_t w_t p_t / W

where the last sum does not depend on the student: it learns the mean label of the user's positions. (So for labels
over the same cells, as those of ``in_batch``, at temperature 1; ``top_k`` has cells of its own at each position.) The
first item of a sequence is no position's target but an edge as all others: it counts recency^n, of the truth alone.

**Serving.** A user's scores are those of the user's vector, for the validation and the test target alike: the
validation item is an edge of neither. Training lifts a user's edges above all other items, and nothing in the network
can learn that they are not bought again. So they are put behind all others, as the paper's evaluation leaves them out;
the setting ``repeats`` lets them stay where they are. A history that is not a user's of the graph has no vector. One
that is folded in, from the propagated vectors of its items, would lack the user's own start vector and what the user
would have changed in the items, so none is offered.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ckd.stages.batching import TrainingWindows, flat_index
from ckd.stages.evaluate.ranking import Scorer
from ckd.stages.students.contract import Domain, Step, positions_of
from ckd.stages.students.fixed_matrix import FixedMatrix
from ckd.stages.students.lightgcn import Settings
from ckd.stages.students.scores import FullScores
from ckd.stages.students.serving import UserServing
from ckd.storage.corpus import HELD_OUT, Corpus

_INIT_STD = 0.1
"""As the authors' own code has it."""


class LightGCN(nn.Module):
    """A :class:`ckd.stages.students.contract.Student` of the users of one corpus, and of no others.

    Attributes:
        max_length: all training positions of the longest sequence.
    """

    def __init__(self, settings: Settings, corpus: Corpus) -> None:
        super().__init__()
        self.max_length = max(1, int(corpus.lengths.max()) - HELD_OUT - 1)
        self.layers, self.recency, self.repeats = settings.layers, settings.recency, settings.repeats
        self.users = nn.Embedding(corpus.n_users, settings.hidden)
        self.items = nn.Embedding(corpus.n_items, settings.hidden)
        for vectors in (self.users, self.items):
            nn.init.normal_(vectors.weight, std=_INIT_STD)
        user, item = training_edges(corpus)
        weight = 1 / np.sqrt(np.bincount(user)[user] * np.bincount(item)[item])
        self.graph = FixedMatrix(user, item, weight, (corpus.n_users, corpus.n_items))

    def propagated(self) -> tuple[Tensor, Tensor]:
        """Return the final vectors of users and items, float [n_users, d] and [n_items, d]."""
        users: list[Tensor] = [self.users.weight]
        items: list[Tensor] = [self.items.weight]
        for _ in range(self.layers):
            at_users, at_items = self.graph(items[-1]), self.graph.transposed(users[-1])
            users.append(at_users)
            items.append(at_items)
        return torch.stack(users).mean(0), torch.stack(items).mean(0)

    def position_weights(self, length: int) -> npt.NDArray[np.float64]:
        """Return w_t of each position t = 1..n of a user, float64 [length]."""
        weights: npt.NDArray[np.float64] = self.recency ** np.arange(length - 1, -1, -1, dtype=np.float64)
        return weights

    def step(self, domain: Domain, served: TrainingWindows, draw: np.random.Generator) -> Step:
        """Score every position of the sequences against the whole catalogue; those of a user share a row."""
        users, items = self.propagated()
        device = items.device

        def tensor(values: npt.NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(values).to(device)

        logits = users[tensor(served.user.astype(np.int64))] @ items.T
        row = np.repeat(np.arange(len(served.length)), served.length)
        until_last = -flat_index(1 - served.length, served.length)
        return Step(
            *positions_of(domain, served, device),
            scores=FullScores(logits, tensor(row)),
            weight=self.recency ** tensor(until_last).to(logits.dtype),
            own=self._first_items(logits, domain.corpus, served),
            own_weight=self.recency ** tensor(served.length).to(logits.dtype),
        )

    def _first_items(self, logits: Tensor, corpus: Corpus, served: TrainingWindows) -> Tensor:
        """Return what the first item of each sequence costs, float [S]."""
        first = torch.from_numpy(corpus.sequence[served.start].astype(np.int64)).to(logits.device)
        own = logits.gather(1, first.unsqueeze(1)).squeeze(1)
        return logits.logsumexp(1) - own

    def scorer(self, domain: Domain) -> Scorer:
        """Return a scorer of users by their vectors; a history must be the user's training items or go beyond them."""
        served = self.user_serving(domain)
        users, items = served.get_buffer("users"), served.item_vectors()
        trained = domain.corpus.lengths - HELD_OUT

        @torch.inference_mode()
        def score(user: npt.NDArray[np.int32], position: npt.NDArray[np.int32]) -> Tensor:
            if (position < trained[user]).any():
                raise ValueError("a history within a user's training items: the later ones are edges of the graph")
            rows = torch.from_numpy(user).to(users.device).long()
            scores: Tensor = users[rows] @ items.T
            return scores if self.repeats else self._without_repeats(scores, rows)

        return score

    def user_serving(self, domain: Domain) -> UserServing:
        """Return the student as it is now and is served in its domain."""
        self.eval()
        with torch.no_grad():
            return UserServing(*self.propagated())

    def _without_repeats(self, scores: Tensor, users: Tensor) -> Tensor:
        """Put each user's edges behind all other items, in their own order."""
        user, item = self.graph.entries(users)
        span = scores.amax(1) - scores.amin(1) + 1
        scores[user, item] -= span[user]
        return scores


def training_edges(corpus: Corpus) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return user and item of each edge, int64 [E] each, distinct, in order of user and item."""
    length = np.maximum(corpus.lengths - HELD_OUT, 0)
    user = np.repeat(np.arange(corpus.n_users), length)
    item = corpus.sequence[flat_index(corpus.offsets[:-1], length)]
    edge = np.unique(user * corpus.n_items + item)
    return edge // corpus.n_items, edge % corpus.n_items
