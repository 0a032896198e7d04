"""What it would cost to serve the teacher itself: the price that a student saves."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ckd.stages.evaluate.serving import milliseconds_per_1000_users
from ckd.stages.teachers.contract import Teacher
from ckd.storage.corpus import Corpus


def serving_facts(teacher: Teacher, corpus: Corpus, device: torch.device) -> dict[str, Any]:
    """Return parameters and milliseconds per 1,000 users of a teacher opened in float32.

    Its item vectors are computed beforehand, as a server would keep them; the text encoder is not counted.
    """
    items = teacher.item_vectors().to(device, torch.float32)

    def score(users: npt.NDArray[np.int32], position: npt.NDArray[np.int32]) -> torch.Tensor:
        return teacher.queries_at(users, position).float() @ items.T

    return {
        "parameters": teacher.n_parameters,
        "ms_per_1000_users": round(milliseconds_per_1000_users(score, corpus), 3),
    }
