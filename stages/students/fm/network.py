"""A factorisation machine of degree two, and its scores of a whole catalogue as one matrix product.

With the features i of history c and item v, their values x and vectors v_i, an FM scores (Rendle 2010, equation 1)

    w_0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j.

Ranking and softmax over items do not change by what depends on the history alone: w_0, its linear terms, the pairs
within it. What is left over is

    w(v) + <sum_{i in c} x_i v_i, sum_{j in v} x_j v_j>,
    w(v) = sum_{j in v} w_j x_j + sum_{j<k in v} <v_j, v_k> x_j x_k

so that all pairs between history and item are one dot product.
"""

import torch
from torch import Tensor

from ckd.stages.students.contract import Domain
from ckd.stages.students.interaction import DotProductInteraction, InteractionStudent
from ckd.stages.students.serving import Serving


class FM(InteractionStudent):
    """A history's vector is the sum of its fields and a one, an item's the sum of its fields and w(v)."""

    def context_vectors(self, fields: Tensor) -> Tensor:
        """float [N, F, d] -> [N, d + 1]."""
        total = fields.sum(1)
        return torch.cat([total, torch.ones_like(total[:, :1])], 1)

    def item_vectors(self, fields: Tensor, own: Tensor) -> Tensor:
        """float [n, F, d] and [n] -> [n, d + 1]."""
        return torch.cat([fields.sum(1), own.unsqueeze(1)], 1)

    def pairs(self, contexts: Tensor, items: Tensor) -> Tensor:
        """float [N, d + 1] and [N, m, d + 1] -> [N, m]."""
        return (items @ contexts.unsqueeze(2)).squeeze(2)

    def cross(self, contexts: Tensor, items: Tensor) -> Tensor:
        """float [N, d + 1] and [U, d + 1] -> [N, U]."""
        return contexts @ items.T

    def serving(self, domain: Domain) -> Serving:
        """Return the student as it is now and is served in a domain: by dot products."""
        self.eval()
        return DotProductInteraction(self, domain)
