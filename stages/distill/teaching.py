"""The cached labels of all teachers for one domain, addressed by (user, position)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ckd.stages.distill.fused import Best, Voice
from ckd.stages.distill.losses import in_batch, top_k
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.weighting import Weights, weigh
from ckd.stages.students.contract import Scores
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError
from ckd.storage.labels import LISTED_WITHIN, REST, UNIFORM, LabelBlock, read_labels, rest_logprob
from ckd.storage.vectors import read_vectors

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Opinion:
    """One teacher's labels as tensors.

    Attributes:
        row: int64 [n_positions], row of the labels of each position of the corpus, -1 where there is none.
        items, logprobs, kept_mass: as in ``LabelBlock``.
        state: float32 [N, d] or None.
        vectors: float32 [n_items, d] or None, the teacher's item vectors.
        rest: float32 [N] or None, log-probability of each item that is not stored, where it is the same for all.
    """

    row: Tensor
    items: Tensor
    logprobs: Tensor
    kept_mass: Tensor
    state: Tensor | None
    vectors: Tensor | None
    rest: Tensor | None = None

    def scores(self, row: Tensor, items: Tensor) -> Tensor:
        """Return the teacher's raw scores of any distinct items, float32 [len(row), len(items)].

        Of ranked lists they are log-probabilities: as stored, and for every other item its equal share of the rest.
        """
        if self.state is not None and self.vectors is not None:
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

    def scorer(self, row: Tensor, items: Tensor) -> Callable[[slice], Tensor]:
        """Return :meth:`scores` of the same items at any of some rows, their vectors looked up once."""
        if self.state is None or self.vectors is None:
            return lambda here: self.scores(row[here], items)
        state, vectors = self.state, self.vectors[items].T
        return lambda here: state[row[here]] @ vectors


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
        self.device = device
        self.temperature = settings.temperature
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
            refuse_empty(teacher, block)
            vectors = read_vectors(artifact)
            rest = rest_logprob(artifact, block, corpus.n_items)
            if settings.loss.get("in_batch") and (block.state is None or vectors is None) and rest is None:
                raise UserError(_no_scores(teacher, artifact))
            row = row_index(block, corpus)
            blocks.append(block)
            rows.append(row)
            opinions.append(_on_device(block, row, vectors, rest, device))
        return cls(opinions, weigh(blocks, rows, corpus.n_items, settings.weighting), settings)

    def item_vectors(self) -> list[npt.NDArray[np.float32]]:
        """Return the item vectors of the teachers that have any, float32 [n_items, their width] each."""
        return [opinion.vectors.cpu().numpy() for opinion in self._opinions if opinion.vectors is not None]

    def losses(self, place: Tensor, scores: Scores, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return sum_p w_p KD_p, float [N], and whether any teacher has a label, bool [N].

        Args:
            place: int64 [N], index of each position among all positions of the corpus.
            scores: the student's at these positions.
            target: int64 [N], the items that followed.
        """
        total = torch.zeros_like(scores.logsumexp)
        taught = torch.zeros_like(place, dtype=torch.bool)
        distinct = torch.unique(target)
        for opinion, weight in zip(self._opinions, self._weight, strict=True):
            row = opinion.row[place]
            labelled = row >= 0
            if not bool(labelled.any()):
                continue
            if bool(labelled.all()):
                total = total + weight[place] * self._loss(opinion, row, scores, distinct)
            else:
                value = self._loss(opinion, row[labelled], scores.rows(labelled), distinct)
                total = total.index_put((labelled.nonzero().squeeze(1),), weight[place[labelled]] * value, True)
            taught |= labelled
        return total, taught

    @property
    def in_closed_form(self) -> bool:
        """Whether :meth:`voices` says all that the losses in use ask for."""
        return {name for name, weight in self._settings.loss.items() if weight} <= {"top_k", "in_batch"}

    def voices(self, place: Tensor, distinct: Tensor) -> tuple[list[Voice], Tensor]:
        """Return what each teacher says at N positions, and whether any has a label, bool [N].

        Args:
            place: int64 [N], index of each position among all positions of the corpus.
            distinct: int64 [U], the batch's distinct targets.
        """
        voices, taught = [], torch.zeros_like(place, dtype=torch.bool)
        for opinion, weight in zip(self._opinions, self._weight, strict=True):
            row = opinion.row[place]
            labelled = row >= 0
            if bool(labelled.any()):
                voices.append(self._voice(opinion, row.clamp(min=0), weight[place] * labelled, distinct))
                taught |= labelled
        return voices, taught

    def _voice(self, opinion: Opinion, row: Tensor, weight: Tensor, distinct: Tensor) -> Voice:
        top_k, in_batch = (self._settings.loss.get(name) for name in ("top_k", "in_batch"))

        def best(here: slice) -> Best:
            rows = row[here]
            return Best(opinion.items[rows].long(), opinion.logprobs[rows], opinion.kept_mass[rows])

        return Voice(
            top_k=top_k * weight if top_k else None,
            in_batch=in_batch * weight if in_batch else None,
            best=best,
            among=opinion.scorer(row, distinct) if in_batch else None,
        )

    def _loss(self, opinion: Opinion, row: Tensor, scores: Scores, distinct: Tensor) -> Tensor:
        value = torch.zeros_like(scores.logsumexp)
        temperature = self._settings.temperature
        if weight := self._settings.loss.get("top_k", 0.0):
            items = opinion.items[row].long()
            own = scores.of(items)
            logsumexp = scores.normaliser(items, own)
            value = value + weight * top_k(own, logsumexp, opinion.logprobs[row], opinion.kept_mass[row], temperature)
        if weight := self._settings.loss.get("in_batch", 0.0):
            taught = opinion.scores(row, distinct)
            value = value + weight * in_batch(scores.among(distinct), taught, temperature)
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


def refuse_empty(teacher: str, block: LabelBlock) -> None:
    """Refuse a teacher that has no label to train on.

    Raises:
        UserError: the block of its training labels is empty.
    """
    if not len(block):
        raise UserError(
            f"the labels of teacher {teacher} cover no training position; "
            "add train to labels.splits and run `ckd precompute`, or leave the teacher out of distill.teachers"
        )


def training_labels(artifact: Artifact, corpus: Corpus, settings: DistillSettings) -> LabelBlock:
    """Load one teacher's labels of the training positions, as much of them as the losses need."""
    wide = ["items", "logprobs"] + (["state"] if settings.loss.get("in_batch") else [])
    block = read_labels(artifact, corpus, wide)
    return block.take(np.flatnonzero(block.split == 0))


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
    )
