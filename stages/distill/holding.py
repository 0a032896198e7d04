"""Where the labels of a domain are while a student learns from them: in memory, or in a file that the system reads.

Either way they are addressed by (user, position), so batches, losses and weights are the same, bit for bit.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ckd.stages.distill.controls import cut_to
from ckd.stages.distill.settings import SCORING_LOSSES, DistillSettings
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus
from ckd.storage.labels import LabelBlock, joined, label_blocks, memory_of, part_names, streamed
from ckd.storage.scratch import spilled

_GB = 1e9
_ROWS = 1_024
"""Rows at a time of what is computed from labels on the disk."""


def scratch_of(labels: Iterable[Artifact], settings: DistillSettings) -> Path | None:
    """Return the folder through which the labels of a domain are streamed, or None if they are held in memory.

    Args:
        labels: of all its teachers.
        settings: the limit and the folder.
    """
    every = list(labels)
    if sum(memory_of(artifact, _columns(settings)) for artifact in every) <= settings.labels_in_memory * _GB:
        return None
    one = every[0]
    return settings.scratch or one.local(part_names(one)[0]).parent.parent


def training_labels(
    artifact: Artifact, corpus: Corpus, settings: DistillSettings, scratch: Path | None = None
) -> LabelBlock:
    """Load one teacher's labels of the training positions, as much of them as the losses need.

    Args:
        artifact: its labels.
        corpus: that they are of.
        settings: losses, and how many of the stored items are used.
        scratch: folder through which they are streamed; None holds them in memory.

    Raises:
        UserError: the folder has no room.
    """

    def taught() -> Iterator[LabelBlock]:
        for block in label_blocks(artifact, corpus, _columns(settings)):
            yield cut_to(block.take(np.flatnonzero(block.split == 0)), settings.teacher_items)

    return joined(taught()) if scratch is None else streamed(taught(), scratch)


def per_item(
    block: LabelBlock, compute: Callable[[LabelBlock], npt.NDArray[Any]], scratch: Path | None
) -> npt.NDArray[Any]:
    """Return something computed for every stored item of a block, [N, k], held where the block is."""
    if scratch is None:
        return compute(block)
    rows = np.arange(len(block))
    parts = ({"found": compute(block.take(rows[at : at + _ROWS]))} for at in range(0, len(block), _ROWS))
    return spilled(parts, scratch)["found"]


def scoring(settings: DistillSettings) -> list[str]:
    """Return the losses in use that ask for scores of items which are not stored."""
    return [name for name in SCORING_LOSSES if settings.loss.get(name)]


def _columns(settings: DistillSettings) -> list[str]:
    return ["items", "logprobs"] + (["state"] if scoring(settings) else [])
