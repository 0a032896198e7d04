"""One teacher's labels of a domain's training positions, as tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ckd.storage.labels import LabelBlock
from ckd.storage.scratch import expect

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Opinion:
    """What one teacher says, and how a loss asks for it.

    Attributes:
        row: int64 [n_positions], row of the labels of each position of the corpus, -1 where there is none.
        items, logprobs, logsumexp, kept_mass: as in ``LabelBlock``.
        state: float32 [N, d] or None. Like items, logprobs and ranked, it may be on the disk and not on the device of
            the rest, so :meth:`at` looks it up.
        vectors: float32 [n_items, d] or None, the teacher's item vectors; of labels out of fold
            [folds + 1, n_items, d], those of the teacher of all users first.
        rest: float32 [N] or None, log-probability of each item that is not stored, where it is the same for all.
        fold: int64 [N] or None, of labels out of fold: whose vectors belong to each row.
        ranked: bool [N, k] or None, which items surely stand above all that are not stored; None means all.
        whole: whether the k items are the whole catalogue.
        temperature: by which this teacher's distribution is softened, beside the temperature of all.
        on_disk: what of it is there, as the columns of :func:`ckd.storage.scratch.spilled`.
    """

    row: Tensor
    items: Tensor
    logprobs: Tensor
    logsumexp: Tensor
    kept_mass: Tensor
    state: Tensor | None = None
    vectors: Tensor | None = None
    rest: Tensor | None = None
    fold: Tensor | None = None
    ranked: Tensor | None = None
    whole: bool = False
    temperature: float = 1.0
    on_disk: tuple[npt.NDArray[Any], ...] = ()

    @classmethod
    def of(
        cls,
        block: LabelBlock,
        row: Int64s,
        optional: Mapping[str, npt.NDArray[Any] | None],
        device: torch.device,
        *,
        whole: bool = False,
        temperature: float = 1.0,
        streamed: bool = False,
    ) -> Self:
        """Move labels to a device.

        Args:
            block: the labels.
            row: int64 [n_positions].
            optional: ``vectors``, ``rest``, ``fold`` and ``ranked``, as far as there are any.
            device: where they go.
            whole, temperature: see above.
            streamed: whether items, logprobs, states and ``ranked`` stay where they are.
        """

        def tensor(values: npt.NDArray[Any]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)

        wide = torch.from_numpy if streamed else tensor
        given = {
            name: (wide if name == "ranked" else tensor)(values)
            for name, values in optional.items()
            if values is not None
        }
        if block.state is not None:
            given["state"] = wide(block.state)
        ranked = optional.get("ranked")
        return cls(
            row=tensor(row),
            items=wide(block.items),
            logprobs=wide(block.logprobs),
            logsumexp=tensor(block.logsumexp),
            kept_mass=tensor(block.kept_mass),
            whole=whole,
            temperature=temperature,
            on_disk=(block.items, *(() if ranked is None else (ranked,))) if streamed else (),
            **given,
        )

    def expect(self, place: npt.NDArray[np.int64]) -> None:
        """Have what is on the disk of some positions of the corpus, int64 [n], read before it is looked up."""
        if self.on_disk:
            row = self.row.cpu().numpy()[place]
            for column in self.on_disk:
                expect(column, row[row >= 0])

    @staticmethod
    def at(column: Tensor, row: Tensor) -> Tensor:
        """Return some rows of items, logprobs, state or ranked, where ``row``, int64 [n], is."""
        return column[row.to(column.device)].to(row.device)

    def of_all_users(self) -> Tensor | None:
        """Return the item vectors of the teacher that was adapted on all users, float32 [n_items, d], or None."""
        return self.vectors if self.vectors is None or self.fold is None else self.vectors[0]

    def scores(self, row: Tensor, items: Tensor) -> Tensor:
        """Return the teacher's raw scores of any distinct items, float32 [len(row), len(items)].

        Of ranked lists they are log-probabilities: as stored, and for every other item its equal share of the rest.
        """
        return self.scorer(row, items)(slice(None))

    def scorer(self, row: Tensor, items: Tensor) -> Callable[[slice], Tensor]:
        """Return what gives :meth:`scores` at some of N rows at a time; the items are looked up once."""
        if self.state is None or self.vectors is None:
            if self.rest is None:
                raise ValueError("these labels hold no states")
            return partial(self._completed, row, self.rest, *items.sort())
        state, fold = self.state, self.fold
        if fold is None:
            vectors = self.vectors[items].T
            return lambda here: self.at(state, row[here]) @ vectors
        of_folds = self.vectors[:, items]
        return lambda here: scores_by_fold(self.at(state, row[here]), fold[row[here]], of_folds)

    def _completed(self, row: Tensor, rest: Tensor, ordered: Tensor, order: Tensor, here: slice) -> Tensor:
        """Return stored log-probabilities, and the rest's, of items that were sorted, in their own order."""
        rows = row[here]
        stored = self.at(self.items, rows).to(ordered.dtype)
        at = torch.searchsorted(ordered, stored).clamp(max=len(ordered) - 1)
        n, column = (ordered[at] == stored).nonzero(as_tuple=True)
        scores = rest[rows].unsqueeze(1).repeat(1, len(ordered))
        scores[n, order[at[n, column]]] = self.at(self.logprobs, rows)[n, column]
        return scores

    def scores_of(self, row: Tensor, items: Tensor) -> Tensor:
        """Return the teacher's log-probabilities of items of each row's own, float32 [len(row), m].

        A raw score less the log-normaliser; of ranked lists as stored, or the equal share of the rest.

        Args:
            row: int64 [N].
            items: int64 [N, m].
        """
        if self.state is not None and self.vectors is not None:
            own = self.vectors[items] if self.fold is None else self.vectors[self.fold[row].unsqueeze(1), items]
            raw = torch.bmm(own, self.at(self.state, row).unsqueeze(2)).squeeze(2)
            return raw - self.logsumexp[row].unsqueeze(1)
        if self.rest is None:
            raise ValueError("these labels hold no states")
        same = self._same(row, items)
        stored = self.at(self.logprobs, row).gather(1, same.int().argmax(2))
        return torch.where(same.any(2), stored, self.rest[row].unsqueeze(1))

    def stores(self, row: Tensor, items: Tensor) -> Tensor:
        """Return whether items of each row's own, int64 [N, m], are among the row's stored ones, bool [N, m]."""
        return self._same(row, items).any(2)

    def _same(self, row: Tensor, items: Tensor) -> Tensor:
        return items.unsqueeze(2) == self.at(self.items, row).unsqueeze(1)


def scores_by_fold(state: Tensor, fold: Tensor, vectors: Tensor) -> Tensor:
    """Return each row's products with the vectors of its fold, float32 [N, n]; one matrix product per fold.

    Args:
        state: float32 [N, d].
        fold: int64 [N].
        vectors: float32 [folds + 1, n, d].
    """
    order = fold.argsort()
    sizes = fold.bincount(minlength=len(vectors)).tolist()
    parts = [part @ own.T for part, own in zip(state[order].split(sizes), vectors, strict=True)]
    return torch.cat(parts)[order.argsort()]
