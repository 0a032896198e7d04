"""Source sequences that are not pre-trained on but choose the epoch."""

import numpy as np
import numpy.typing as npt
import torch

from ckd.stages.teachers.loop import generator
from ckd.storage.errors import UserError

Int64s = npt.NDArray[np.int64]


def split_sequences(n: int, held_out: int, seed: int) -> tuple[Int64s, Int64s]:
    """Return which of n sequences are held out and which are trained on, int64, each in order.

    Raises:
        UserError: fewer than two are left to train on.
    """
    if n < held_out + 2:
        raise UserError(
            f"the sources have {n} sequences that can be trained on, and pretrain.held_out asks for {held_out} of them "
            "to be left out; lower it, or add sources"
        )
    order = generator(seed).permutation(n)
    return np.sort(order[:held_out]), np.sort(order[held_out:])


def hits(scores: torch.Tensor, own: torch.Tensor) -> float:
    """Return the share of rows whose best score is that of their own item.

    Args:
        scores: float [N, N]; column j is the item of row j.
        own: int64 [N], item of each row; several rows may have the same.
    """
    return float((own[scores.argmax(1)] == own).float().mean())
