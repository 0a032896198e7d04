"""The features of a history and of an item, in fields, each feature with a vector: what factorisation machines see.

A field of several features (a bag) holds the mean of their vectors, that is, each feature has the value 1 / size of the
bag (Rendle 2010, section V: x_i = 1/n of the items a user has rated). The fields of a history are

- ``history``: its items, of which the one j places from the end has the value decay^j, divided by the sum of these;
- one field for each of ``categories``, ``brand`` and ``title``, as far as known: the same mean of its items' bags;
- ``place 0``, ``place 1``, ...: its last item, the one before, ...;
- ``domain``, where there are several.

The fields of an item are its ``id`` and its own ``categories``, ``brand`` and ``title``. A history's item and an item
to be scored are two features with two vectors, as in FPMC (Rendle et al. 2010).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ckd.stages.students.contract import Domain
from ckd.stages.students.fixed_matrix import FixedMatrix
from ckd.stages.students.item_features import Bags

if TYPE_CHECKING:
    from ckd.stages.students.fm import Fields as FieldSettings

_INIT_STD = 0.05


class Fields(nn.Module):
    """Vectors of all features.

    Args:
        settings: width, places, decay.
        domains: items of each, among those of all domains.
        bags: of all items, by field.
    """

    def __init__(self, settings: "FieldSettings", domains: Sequence[slice], bags: Mapping[str, Bags]) -> None:
        super().__init__()
        self.decay = settings.decay
        self.bags = nn.ModuleList(
            nn.ModuleDict({field: _means(found, items) for field, found in bags.items()}) for items in domains
        )
        n_items, hidden = domains[-1].stop, settings.hidden
        sizes = {field: found.size for field, found in bags.items()}
        all_sizes = {"id": n_items, **sizes}
        self.id = nn.Embedding(n_items, hidden)
        nn.init.normal_(self.id.weight, std=_INIT_STD)
        self.item = nn.ParameterDict({field: _vectors(size, hidden) for field, size in sizes.items()})
        self.linear = nn.ParameterDict({field: nn.Parameter(torch.zeros(size, 1)) for field, size in all_sizes.items()})
        self.history = nn.ParameterDict({field: _vectors(size, hidden) for field, size in all_sizes.items()})
        self.places = nn.ParameterList(_vectors(n_items, hidden) for _ in range(settings.places))
        self.domain = _vectors(len(domains), hidden) if len(domains) > 1 else None

    @property
    def of_context(self) -> int:
        """Number of fields of a history."""
        return len(self.history) + len(self.places) + (self.domain is not None)

    @property
    def of_item(self) -> int:
        """Number of fields of an item."""
        return 1 + len(self.item)

    def contexts(self, codes: Tensor, ends: Tensor, domain: Domain, known: Tensor) -> Tensor:
        """Return the fields of histories, float [B, T, F, d]; what stands behind a history's end is not seen.

        Args:
            codes: int64 [B, L], items of a domain, oldest first.
            ends: int64 [B, T] or [1, T], index of the last item of each history of a row.
            domain: of the items.
            known: of every item, as returned by :meth:`in_history`.
        """
        share = _decayed_mean(ends, codes.shape[1], self.decay, known)
        fields = [(share @ known[codes].flatten(2)).unflatten(2, known.shape[1:])]
        for back, vectors in enumerate(self.places):
            place = (ends - back).expand(codes.shape[0], -1)
            item = codes.gather(1, place.clamp(min=0)) + domain.first
            fields.append((vectors[item] * (place >= 0).unsqueeze(2)).unsqueeze(2))
        if self.domain is not None:
            fields.append(self.domain[domain.index].expand(codes.shape[0], ends.shape[1], 1, -1))
        return torch.cat(fields, 2)

    def in_history(self, domain: Domain) -> Tensor:
        """Return the fields of every item of a domain as one of a history's, float [n, F, d]."""
        return self._per_item(self.history["id"], self.history, domain)

    def items(self, domain: Domain) -> Tensor:
        """Return the fields of every item of a domain, float [n, F, d]."""
        return self._per_item(self.id.weight, self.item, domain)

    def own(self, fields: Tensor, domain: Domain) -> Tensor:
        """Return what each item scores by itself, float [n]: linear terms and its features' pairs.

        The pairs are 1/2 (|sum_i x_i v_i|^2 - sum_i x_i^2 |v_i|^2) (Rendle 2010, lemma 3.1).

        Args:
            fields: of the items, as returned by :meth:`items`.
            domain: theirs.
        """
        linear = self._per_item(self.linear["id"], self.linear, domain).sum((1, 2))
        squares = self.id.weight[domain.items].square().sum(1)
        for field, mean in self._means(domain):
            lengths = self.item[field].square().sum(1, keepdim=True)
            squares = squares + mean(lengths).squeeze(1) / mean.entries_per_row.clamp(min=1)
        return linear + (fields.sum(1).square().sum(1) - squares) / 2

    def _per_item(self, ids: Tensor, vectors: nn.ParameterDict, domain: Domain) -> Tensor:
        """Return the fields of each item by some vectors, float [n, F, d]: itself, then its bags."""
        means = [mean(vectors[field]) for field, mean in self._means(domain)]
        return torch.stack([ids[domain.items], *means], 1)

    def _means(self, domain: Domain) -> Iterator[tuple[str, FixedMatrix]]:
        """Yield each field of bags with the matrix that takes the mean over them."""
        bags: Any = self.bags[domain.index]
        yield from bags.items()


def _means(bags: Bags, items: slice) -> FixedMatrix:
    counts = np.diff(bags.offsets)[items]
    features = bags.features[bags.offsets[items.start] : bags.offsets[items.stop]]
    value = np.repeat(1 / np.maximum(counts, 1), counts)
    return FixedMatrix(np.repeat(np.arange(len(counts)), counts), features, value, (len(counts), bags.size))


def _decayed_mean(ends: Tensor, length: int, decay: float, like: Tensor) -> Tensor:
    """Return the weight of item s in the mean that ends at item t: int64 [B, T] -> float [B, T, L], zero behind it."""
    back = ends.unsqueeze(2) - torch.arange(length, device=ends.device)
    weight = torch.where(back >= 0, torch.tensor(decay, dtype=like.dtype, device=like.device) ** back, 0)
    return weight / weight.sum(2, keepdim=True)


def _vectors(size: int, hidden: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(size, hidden) * _INIT_STD)
