"""The cached labels of all teachers for one domain, addressed by (user, position)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ckd.stages.distill.losses import in_batch, top_k
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.weighting import Weights, weigh
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError
from ckd.storage.folds import all_folds
from ckd.storage.labels import (
    FOLDS,
    LISTED_WITHIN,
    REST,
    UNIFORM,
    LabelBlock,
    fold_of_rows,
    read_labels,
    rest_logprob,
)
from ckd.storage.vectors import read_vectors

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Opinion:
    """One teacher's labels as tensors.

    Attributes:
        row: int64 [n_positions], row of the labels of each position of the corpus, -1 where there is none.
        items, logprobs, kept_mass: as in ``LabelBlock``.
        state: float32 [N, d] or None.
        vectors: float32 [n_items, d] or None, the teacher's item vectors; of labels out of fold
            [folds + 1, n_items, d], those of the teacher of all users first.
        rest: float32 [N] or None, log-probability of each item that is not stored, where it is the same for all.
        fold: int64 [N] or None, of labels out of fold: whose vectors belong to each row.
    """

    row: Tensor
    items: Tensor
    logprobs: Tensor
    kept_mass: Tensor
    state: Tensor | None
    vectors: Tensor | None
    rest: Tensor | None = None
    fold: Tensor | None = None

    def scores(self, row: Tensor, items: Tensor) -> Tensor:
        """Return the teacher's raw scores of any distinct items, float32 [len(row), len(items)].

        Of ranked lists they are log-probabilities: as stored, and for every other item its equal share of the rest.
        """
        if self.state is not None and self.vectors is not None:
            if self.fold is not None:
                return scores_by_fold(self.state[row], self.fold[row], self.vectors[:, items])
            return self.state[row] @ self.vectors[items].T
        if self.rest is None:
            raise ValueError("these labels hold no states")
        ordered, order = items.sort()
        stored = self.items[row].to(items.dtype)
        at = torch.searchsorted(ordered, stored).clamp(max=len(items) - 1)
        n, column = (ordered[at] == stored).nonzero(as_tuple=True)
        scores = self.rest[row].unsqueeze(1).repeat(1, len(items))
        scores[n, order[at[n, column]]] = self.logprobs[row][n, column]
        return scores


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


class Teaching:
    """What all teachers say of one domain, and what it weighs.

    Attributes:
        gate: float64 [n_positions], g before it is scaled to mean 1.
        labelled: bool [n_positions], whether any teacher has a label.
    """

    def __init__(self, opinions: Sequence[Opinion], weights: Weights, settings: DistillSettings) -> None:
        self._opinions = list(opinions)
        self._settings = settings
        device = opinions[0].items.device
        self.gate = weights.gate
        self.labelled = weights.teacher.any(0)
        self._weight = torch.from_numpy(weights.teacher).to(device, torch.float32)

    @classmethod
    def load(
        cls, corpus: Corpus, labels: Mapping[str, Artifact], settings: DistillSettings, device: torch.device
    ) -> Self:
        """Load the training labels of all teachers and weigh them.

        Raises:
            UserError: a loss needs what the labels do not hold, or a teacher has no label to train on.
        """
        blocks, rows, opinions = [], [], []
        for teacher, artifact in labels.items():
            block = training_labels(artifact, corpus, settings)
            if not len(block):
                raise UserError(
                    f"the labels of teacher {teacher} cover no training position; "
                    "add train to labels.splits and run `ckd precompute`, or leave the teacher out of distill.teachers"
                )
            fold = fold_of_rows(artifact, block, corpus)
            vectors = _vectors(artifact)
            rest = rest_logprob(artifact, block, corpus.n_items)
            if settings.loss.get("in_batch") and (block.state is None or vectors is None) and rest is None:
                raise UserError(_no_scores(teacher, artifact))
            row = row_index(block, corpus)
            blocks.append(block)
            rows.append(row)
            opinions.append(_on_device(block, row, vectors, rest, fold, device))
        return cls(opinions, weigh(blocks, rows, corpus.n_items, settings.weighting), settings)

    def losses(self, place: Tensor, logits: Tensor, logsumexp: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return sum_p w_p KD_p, float [N], and whether any teacher has a label, bool [N].

        Args:
            place: int64 [N], index of each position among all positions of the corpus.
            logits: float [N, n_items], of the student.
            logsumexp: float [N], of the logits.
            target: int64 [N], the items that followed.
        """
        total = torch.zeros_like(logsumexp)
        taught = torch.zeros_like(target, dtype=torch.bool)
        distinct = torch.unique(target)
        for opinion, weight in zip(self._opinions, self._weight, strict=True):
            row = opinion.row[place]
            labelled = row >= 0
            if not bool(labelled.any()):
                continue
            here = slice(None) if bool(labelled.all()) else labelled
            value = self._loss(opinion, row[here], logits[here], logsumexp[here], distinct)
            total[here] = total[here] + weight[place[here]] * value
            taught |= labelled
        return total, taught

    def _loss(self, opinion: Opinion, row: Tensor, logits: Tensor, logsumexp: Tensor, distinct: Tensor) -> Tensor:
        value = torch.zeros_like(logsumexp)
        temperature = self._settings.temperature
        if weight := self._settings.loss.get("top_k", 0.0):
            chosen = logits.gather(1, opinion.items[row].long())
            value = value + weight * top_k(
                chosen, logsumexp, opinion.logprobs[row], opinion.kept_mass[row], temperature
            )
        if weight := self._settings.loss.get("in_batch", 0.0):
            taught = opinion.scores(row, distinct)
            value = value + weight * in_batch(logits[:, distinct], taught, temperature)
        return value


def _no_scores(teacher: str, artifact: Artifact) -> str:
    """Return why the items of a batch can't be scored."""
    if artifact.facts.get(REST) == UNIFORM:
        return (
            f"distill.loss.in_batch needs all listed items of teacher {teacher} in its labels; set labels.top_k to "
            f"{artifact.facts[LISTED_WITHIN]} or more and run `ckd precompute`, or leave in_batch out (of "
            "log-probabilities so low that unlisted items come before listed ones, scores: logit keeps the order)"
        )
    return (
        f"distill.loss.in_batch needs the states of teacher {teacher}, its labels hold none; "
        "set labels.state: true and run `ckd precompute`, or leave in_batch out"
    )


def training_labels(artifact: Artifact, corpus: Corpus, settings: DistillSettings) -> LabelBlock:
    """Load one teacher's labels of the training positions, as much of them as the losses need."""
    wide = ["items", "logprobs"] + (["state"] if settings.loss.get("in_batch") else [])
    block = read_labels(artifact, corpus, wide)
    return block.take(np.flatnonzero(block.split == 0))


def _vectors(artifact: Artifact) -> npt.NDArray[np.float32] | None:
    """Return a teacher's item vectors as in ``Opinion``, or None where the labels have none."""
    vectors = read_vectors(artifact)
    if vectors is None or FOLDS not in artifact.facts:
        return vectors
    per_fold = [read_vectors(artifact, fold.number) for fold in all_folds(artifact.facts[FOLDS])]
    return np.stack([vectors, *(each for each in per_fold if each is not None)])


def row_index(block: LabelBlock, corpus: Corpus) -> Int64s:
    """Return the row of the labels of each position of the corpus, int64 [n_positions], -1 where there is none."""
    index = np.full(corpus.n_positions, -1, np.int64)
    index[corpus.position_offsets[block.user] + block.position - 1] = np.arange(len(block))
    return index


def _on_device(
    block: LabelBlock,
    row: Int64s,
    vectors: npt.NDArray[np.float32] | None,
    rest: npt.NDArray[np.float32] | None,
    fold: npt.NDArray[np.int32] | None,
    device: torch.device,
) -> Opinion:
    def tensor(values: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    return Opinion(
        row=tensor(row),
        items=tensor(block.items),
        logprobs=tensor(block.logprobs),
        kept_mass=tensor(block.kept_mass),
        state=None if block.state is None else tensor(block.state),
        vectors=None if vectors is None else tensor(vectors),
        rest=None if rest is None else tensor(rest),
        fold=None if fold is None else tensor(fold.astype(np.int64)),
    )
