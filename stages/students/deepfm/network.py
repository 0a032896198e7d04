"""The DeepFM network (arXiv 1703.04247, section 2.1), its first layer split between history and item.

A score is that of the factorisation machine plus a network's on all fields side by side. The network's first layer is
linear, W [fields of the history; fields of the item] + b = (W_c [history] + b) + W_v [item], so its two parts are
computed once per history and once per item; only what comes behind, from its ReLU on, is computed per pair. Pairs go
through in blocks whose inner activations are not kept for the gradient but computed again, so that memory is bounded
in training and over the whole catalogue alike.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ckd.stages.students.contract import Domain
from ckd.stages.students.deepfm import Settings
from ckd.stages.students.fm.network import FM
from ckd.stages.students.interaction import InteractionServing
from ckd.stages.students.serving import Serving

PAIRS_PER_BLOCK = 2**16
ITEMS_PER_BLOCK = 2**14
"""Of the catalogue that is served: an exported model has blocks of one size, whatever the batch."""


class DeepFM(FM):
    """A history's vector is the factorisation machine's, then its part of the first layer; so is an item's."""

    def __init__(self, settings: Settings, domains: Sequence[Domain]) -> None:
        super().__init__(settings, domains)
        first, *_ = settings.layers
        self.of_history = nn.Linear(self.fields.of_context * settings.hidden, first)
        self.of_item = nn.Linear(self.fields.of_item * settings.hidden, first, bias=False)
        layers: list[nn.Module] = [nn.ReLU()]
        for width, wider in pairwise(settings.layers):
            layers += [nn.Linear(width, wider), nn.ReLU()]
        self.behind = nn.Sequential(*layers, nn.Linear(settings.layers[-1], 1, bias=False))
        self._machine = settings.hidden + 1

    def context_vectors(self, fields: Tensor) -> Tensor:
        """float [N, F, d] -> [N, d + 1 + first layer]."""
        return torch.cat([super().context_vectors(fields), self.of_history(fields.flatten(1))], 1)

    def item_vectors(self, fields: Tensor, own: Tensor) -> Tensor:
        """float [n, F, d] and [n] -> [n, d + 1 + first layer]."""
        return torch.cat([super().item_vectors(fields, own), self.of_item(fields.flatten(1))], 1)

    def pairs(self, contexts: Tensor, items: Tensor) -> Tensor:
        """float [N, c] and [N, m, v] -> [N, m]."""
        machine = super().pairs(contexts[:, : self._machine], items[..., : self._machine])
        return machine + self._deep(contexts[:, self._machine :], items[..., self._machine :])

    def cross(self, contexts: Tensor, items: Tensor) -> Tensor:
        """float [N, c] and [U, v] -> [N, U]."""
        machine = super().cross(contexts[:, : self._machine], items[:, : self._machine])
        return machine + self._deep(contexts[:, self._machine :], items[:, self._machine :].unsqueeze(0))

    def _deep(self, contexts: Tensor, items: Tensor) -> Tensor:
        """float [N, h] and [N or 1, m, h] -> [N, m], in blocks of items."""
        blocks = items.split(max(1, PAIRS_PER_BLOCK // max(1, len(contexts))), dim=1)
        if len(blocks) == 1 or not torch.is_grad_enabled():
            return torch.cat([self._from_first_layer(contexts, block) for block in blocks], 1)

        return torch.cat(
            [checkpoint(self._from_first_layer, contexts, block, use_reentrant=False) for block in blocks], 1
        )

    def _from_first_layer(self, contexts: Tensor, items: Tensor) -> Tensor:
        return self.behind(contexts.unsqueeze(1) + items).squeeze(2)

    def serving(self, domain: Domain) -> Serving:
        """Return the student as it is now and is served in a domain."""
        self.eval()
        return _DeepServing(self, domain)

    def served(self, contexts: Tensor, items: Tensor) -> Tensor:
        """Return what ``cross`` returns, in blocks that do not depend on the batch."""
        machine, deep = contexts[:, : self._machine], contexts[:, self._machine :]
        blocks = items[:, self._machine :].unsqueeze(0).split(ITEMS_PER_BLOCK, dim=1)
        return super().cross(machine, items[:, : self._machine]) + torch.cat(
            [self._from_first_layer(deep, block) for block in blocks], 1
        )


class _DeepServing(InteractionServing):
    student: DeepFM

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        return self.student.served(self.query(items, lengths), self.item_vectors())
