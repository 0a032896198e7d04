"""Labels with less in them than the teacher put there: what is left of a gain then is not the teacher's knowledge."""

import dataclasses

import numpy as np
import numpy.typing as npt

from ckd.stages.distill.settings import Control
from ckd.storage.labels import LabelBlock

_SEED = 0
"""Of the permutation: the control is part of what is compared, not of the chance that a student's seed stands for."""


def controlled(
    block: LabelBlock, row: npt.NDArray[np.int64], control: Control
) -> tuple[LabelBlock, npt.NDArray[np.int64]]:
    """Return labels and their rows under a control.

    ``shuffled`` gives every labelled position the label of another one drawn at random: a student that gains from it
    gains from smoothing. ``one_hot`` leaves of every label the teacher's best item alone, with all the probability: a
    student that gains as much from it gains nothing from softness. Confidence and consistency are to be those of the
    labels without a control: best items alone hardly agree, and a gate of zero there would be a second change.

    Args:
        block: labels of N positions.
        row: int64 [n_positions], row of the labels of each position, -1 where there is none.
        control: which one.
    """
    if control == "shuffled":
        mixed = row.copy()
        labelled = row >= 0
        mixed[labelled] = np.random.default_rng(_SEED).permutation(row[labelled])
        return block, mixed
    if control == "one_hot":
        return _one_hot(block), row
    return block, row


def cut_to(block: LabelBlock, most: int | None) -> LabelBlock:
    """Return the labels with the best ``most`` of their stored items, as if no more had been stored; None keeps all."""
    if most is None or most >= block.k:
        return block
    logprobs = np.ascontiguousarray(block.logprobs[:, :most])
    kept_mass = np.exp(logprobs.astype(np.float64)).sum(1).clip(max=1).astype(np.float32)
    return dataclasses.replace(
        block, items=np.ascontiguousarray(block.items[:, :most]), logprobs=logprobs, kept_mass=kept_mass
    )


def _one_hot(block: LabelBlock) -> LabelBlock:
    alone = cut_to(block, 1)
    return dataclasses.replace(
        alone, logprobs=np.zeros_like(alone.logprobs), kept_mass=np.ones_like(alone.kept_mass), state=None
    )
