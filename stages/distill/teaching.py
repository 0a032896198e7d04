"""The cached labels of all teachers for one domain, addressed by (user, position)."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ckd.stages.distill.comparisons import COMPARISONS
from ckd.stages.distill.controls import controlled
from ckd.stages.distill.fused import Voice
from ckd.stages.distill.holding import per_item, scratch_of, training_labels
from ckd.stages.distill.needs import refuse_empty, refuse_unfit
from ckd.stages.distill.opinion import Int64s, Opinion
from ckd.stages.distill.settings import DistillSettings, WeightingSettings
from ckd.stages.distill.voices import voice_of
from ckd.stages.distill.weighting import Weights, weigh
from ckd.stages.students.contract import Scores
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus
from ckd.storage.errors import DamagedArtifact
from ckd.storage.folds import all_folds
from ckd.storage.labels import FOLDS, LabelBlock, above_the_rest, fold_of_rows, rest_logprob
from ckd.storage.vectors import read_vectors


class Sample(NamedTuple):
    """Some of N positions for all of them.

    Attributes:
        rows: int64 [n], which, ascending.
        scale: by which a sum over them is multiplied to be, in the mean over draws, the sum over all.
    """

    rows: Tensor
    scale: float


class Teaching:
    """What all teachers say of one domain, and what it weighs.

    Attributes:
        gate: float64 [n_positions], g before it is scaled to mean 1.
        labelled: bool [n_positions], whether any teacher has a label.
    """

    def __init__(self, opinions: Sequence[Opinion], weights: Weights, settings: DistillSettings) -> None:
        self._opinions = list(opinions)
        self._settings = settings
        device = opinions[0].row.device
        self.device = device
        self.temperature = settings.temperature
        self.gate = weights.gate
        self.labelled = weights.teacher.any(0)
        self._labelled = torch.from_numpy(self.labelled).to(device)
        self._weight = torch.from_numpy(weights.teacher).to(device, torch.float32)

    @classmethod
    def load(
        cls, corpus: Corpus, labels: Mapping[str, Artifact], settings: DistillSettings, device: torch.device
    ) -> Self:
        """Load the training labels of all teachers and weigh them.

        Labels larger than ``settings.labels_in_memory`` go, a row group at a time, into a file, and stay there.

        Raises:
            UserError: a loss needs what the labels do not hold, or a teacher has no label to train on.
        """
        stored: list[Stored] = []
        opinions: list[Opinion] = []
        scratch = scratch_of(labels.values(), settings)
        for teacher, artifact in labels.items():
            stored.append(stored_labels(teacher, artifact, corpus, settings, scratch))
            block, row = taught_labels(teacher, artifact, stored[-1], corpus.n_items, settings)
            fold = fold_of_rows(artifact, block, corpus)
            vectors = _vectors(artifact)
            rest = rest_logprob(artifact, block, corpus.n_items)
            above = partial(above_the_rest, artifact, n_items=corpus.n_items)
            ranked = per_item(block, above, scratch) if settings.loss.get("rank") else None
            opinion = Opinion.of(
                block,
                row,
                {
                    "vectors": vectors,
                    "rest": rest,
                    "ranked": ranked,
                    "fold": None if fold is None else fold.astype(np.int64),
                },
                device,
                whole=block.k == corpus.n_items,
                temperature=settings.teacher_temperature.get(teacher, 1.0),
                streamed=scratch is not None,
            )
            opinions.append(opinion)
        return cls(opinions, weigh_all(stored, corpus.n_items, settings.weighting), settings)

    def item_vectors(self) -> list[npt.NDArray[np.float32]]:
        """Return the item vectors of the teachers that have any, float32 [n_items, their width] each."""
        found = [opinion.of_all_users() for opinion in self._opinions]
        return [vectors.cpu().numpy() for vectors in found if vectors is not None]

    def expect(self, place: Int64s) -> None:
        """Have the labels of some positions of the corpus, int64 [n], read from the disk before they are needed."""
        for opinion in self._opinions:
            opinion.expect(place)

    def labelled_at(self, place: Tensor) -> Tensor:
        """Return whether any teacher has a label, bool [N]; ``place`` as in :meth:`losses`."""
        return self._labelled[place]

    def sample(self, place: Tensor) -> Sample | None:
        """Draw the labelled ones among N positions at which the teachers are heard at a step; None is at all.

        They are drawn by torch's generator of the processor, which is left alone where all are heard.
        """
        if self._settings.taught_share == 1:
            return None
        labelled = self.labelled_at(place).nonzero().squeeze(1)
        n = min(max(1, round(self._settings.taught_share * len(labelled))), len(labelled))
        drawn = torch.randperm(len(labelled))[:n].sort().values
        return Sample(labelled[drawn.to(self.device)], len(labelled) / max(n, 1))

    def losses(self, place: Tensor, scores: Scores, batch: Tensor) -> Tensor:
        """Return sum_p w_p KD_p, float [N]; zero where no teacher has a label.

        Args:
            place: int64 [N], index of each position among all positions of the corpus.
            scores: the student's at these positions.
            batch: int64 [U], distinct targets of the step.
        """
        total = torch.zeros_like(scores.logsumexp)
        for opinion, weight in zip(self._opinions, self._weight, strict=True):
            row = opinion.row[place]
            labelled = row >= 0
            if not bool(labelled.any()):
                continue
            if bool(labelled.all()):
                total = total + weight[place] * self._loss(opinion, row, scores, batch)
            else:
                value = self._loss(opinion, row[labelled], scores.rows(labelled), batch)
                total[labelled] = total[labelled] + weight[place[labelled]] * value
        return total

    @property
    def on_disk(self) -> bool:
        """Whether any label is looked up on the disk: :meth:`expect` is worth its while."""
        return any(opinion.on_disk for opinion in self._opinions)

    @property
    def in_closed_form(self) -> bool:
        """Whether :meth:`voices` says all that the losses in use ask for."""
        return {name for name, weight in self._settings.loss.items() if weight} <= {"top_k", "in_batch"}

    def voices(self, place: Tensor, batch: Tensor) -> list[Voice]:
        """Return what each teacher that has a label at any of N positions says there; arguments as of `losses`."""
        heard = []
        for opinion, weight in zip(self._opinions, self._weight, strict=True):
            row = opinion.row[place]
            labelled = row >= 0
            if bool(labelled.any()):
                heard.append(voice_of(opinion, row.clamp(min=0), weight[place] * labelled, batch, self._settings))
        return heard

    def _loss(self, opinion: Opinion, row: Tensor, scores: Scores, batch: Tensor) -> Tensor:
        value = torch.zeros_like(scores.logsumexp)
        for name, compare in COMPARISONS.items():  # in this order: the one in the configuration is in no key
            if weight := self._settings.loss.get(name):
                value = value + weight * compare(opinion, row, scores, batch, self._settings)
        return value


Stored = tuple[LabelBlock, Int64s]
"""What of one teacher's labels is used, and int64 [n_positions], the row of each position of the corpus or -1."""


def stored_labels(
    teacher: str, artifact: Artifact, corpus: Corpus, settings: DistillSettings, scratch: Path | None = None
) -> Stored:
    """Return what of one teacher's labels is used, and the row of each position of the corpus or -1.

    These are weighed. What is taught is these under a control: that changes what a teacher says, not what it counts.

    Args:
        teacher: its name.
        artifact, corpus, settings, scratch: as in :func:`training_labels`.

    Raises:
        UserError: no training position has a label.
    """
    block = training_labels(artifact, corpus, settings, scratch)
    refuse_empty(teacher, block)
    return block, row_index(block, corpus)


def taught_labels(teacher: str, artifact: Artifact, stored: Stored, n_items: int, settings: DistillSettings) -> Stored:
    """Return what of one teacher's labels is taught: what is used of them, under the control that is set.

    Args:
        teacher, artifact, settings: as in :func:`stored_labels`.
        stored: what that gave.
        n_items: size of the catalogue.

    Raises:
        UserError: the losses in use cannot be computed from it.
    """
    block, row = controlled(*stored, settings.control)
    refuse_unfit(teacher, artifact, block, n_items, settings)
    return block, row


def weigh_all(stored: Sequence[Stored], n_items: int, settings: WeightingSettings) -> Weights:
    """Return what each teacher counts at each position, by its labels without a control; see :func:`weigh`."""
    return weigh([block for block, _ in stored], [row for _, row in stored], n_items, settings)


def _vectors(artifact: Artifact) -> npt.NDArray[np.float32] | None:
    """Return a teacher's item vectors as in ``Opinion``, or None where the labels have none."""
    vectors = read_vectors(artifact)
    if vectors is None or FOLDS not in artifact.facts:
        return vectors
    per_fold = [vectors]
    for fold in all_folds(artifact.facts[FOLDS]):
        if (own := read_vectors(artifact, fold.number)) is None:
            raise DamagedArtifact(f"{artifact.path} lacks the item vectors of {fold}; run `ckd precompute` again")
        per_fold.append(own)
    return np.stack(per_fold)


def row_index(block: LabelBlock, corpus: Corpus) -> Int64s:
    """Return the row of the labels of each position of the corpus, int64 [n_positions], -1 where there is none."""
    index = np.full(corpus.n_positions, -1, np.int64)
    index[corpus.position_offsets[block.user] + block.position - 1] = np.arange(len(block))
    return index
