"""Ranking metrics of one relevant item per row, from its rank."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ranks = npt.NDArray[np.integer]

STORED_CUTOFFS = (10, 50)
"""Cut-offs of the metrics that are stored and shown in SQL; any other one can be had from the stored ranks."""


def reciprocal_log_gain(ranks: Ranks, cutoff: int) -> npt.NDArray[np.float64]:
    """Return NDCG@cutoff of each row: 1 / log2(1 + rank) where rank <= cutoff, else 0.

    The ideal ranking has its one relevant item first, so the ideal DCG is 1.
    """
    return np.where(ranks <= cutoff, 1 / np.log2(1.0 + ranks), 0.0)


def row_metrics(ranks: Ranks, cutoffs: Sequence[int]) -> dict[str, npt.NDArray[np.float64]]:
    """Return each metric of each row, ``{"recall@10": [n], ..., "mrr": [n]}``.

    Args:
        ranks: integer [n], the rank of the relevant item, 1 is best.
        cutoffs: k of Recall@k and NDCG@k.
    """
    values = {f"recall@{k}": (ranks <= k).astype(np.float64) for k in cutoffs}
    values |= {f"ndcg@{k}": reciprocal_log_gain(ranks, k) for k in cutoffs}
    return values | {"mrr": 1.0 / ranks}


def metric_names(cutoffs: Sequence[int]) -> list[str]:
    """Return the names of the metrics, in the order in which they are reported."""
    return list(row_metrics(np.ones(0, np.int64), cutoffs))


def metrics(ranks: Ranks, cutoffs: Sequence[int]) -> dict[str, float]:
    """Return the mean of each metric over the rows; NaN without rows."""
    rows = row_metrics(ranks, cutoffs)
    return {name: float(values.mean()) if len(values) else float("nan") for name, values in rows.items()}
