"""The teachers' item geometry as a place for a student's items to start from."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]


def principal_items(teachers: Sequence[Float32s], width: int, spread: float) -> Float32s:
    """Return what the teachers know of the items, in as many dimensions as a student has, float32 [n_items, width].

    Each teacher's item vectors are centred and scaled to the same total variance, stood beside each other and projected
    on their principal components, so that dot products between items are kept as well as ``width`` numbers can (the
    start that LLM2BERT4Rec takes from a language model's item vectors, Harte et al. 2023, arXiv 2309.07094).

    Args:
        teachers: float32 [n_items, any], each teacher's item vectors, at least one.
        width: of the student's item vectors; components beyond what the teachers have are zero.
        spread: standard deviation of the numbers that are returned."""
    beside = np.concatenate([_standardised(vectors.astype(np.float64)) for vectors in teachers], axis=1)
    # The eigenvectors of the small covariance matrix; no n_items x n_items matrix is made.
    values, directions = np.linalg.eigh(beside.T @ beside)
    leading = directions[:, np.argsort(-values, kind="stable")[:width]]
    leading *= np.sign(leading[np.abs(leading).argmax(0), np.arange(leading.shape[1])])  # an eigenvector's sign is free
    start = np.zeros((len(beside), width))
    start[:, : leading.shape[1]] = beside @ leading
    return (start * (spread / max(float(start.std()), 1e-12))).astype(np.float32)


def _standardised(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    centred = vectors - vectors.mean(0)
    return centred / max(float(np.sqrt((centred**2).sum(1).mean())), 1e-12)
