"""Trainings of seconds, the same for all tests of the training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.teaching import Teaching
from ckd.stages.distill.train import Epoch, Lesson, train
from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import side_by_side
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus

Array = npt.NDArray[Any]
CPU = torch.device("cpu")
NO_CURRICULUM = {"pacing": "none"}


def settings(**values: Any) -> DistillSettings:
    quick = {"epochs": 3, "patience": 100, "batch_size": 8, "curriculum": NO_CURRICULUM}
    return DistillSettings.model_validate({**quick, **values})


def sizes_of(**sizes: Any) -> Any:
    small = {"hidden": 16, "blocks": 1, "heads": 2, "dropout": 0.0, "max_length": 8, "learning_rate": 1e-2}
    return STUDENTS.load("sasrec").Settings(**{**small, **sizes})


def student(corpora: Sequence[Corpus], seed: int = 0, **sizes: Any) -> Any:
    torch.manual_seed(seed)
    return STUDENTS.load("sasrec").build(sizes_of(**sizes), side_by_side(corpora))


def trained(
    corpus: Corpus, option: DistillSettings, lesson: Lesson | None = None, seed: int = 0, **sizes: Any
) -> tuple[Any, list[Epoch]]:
    network = student([corpus], seed, **sizes)
    return network, train(network, side_by_side([corpus]), [lesson], sizes_of(**sizes), option, seed)


def taught(world: Any, labels: dict[str, Artifact], option: DistillSettings, hardness: Array | None = None) -> Lesson:
    easy = np.zeros(world.corpus.n_users) if hardness is None else hardness
    return Lesson(Teaching.load(world.corpus, labels, option, CPU), easy)


def truth_losses(network: Any, corpus: Corpus) -> Array:
    """-log softmax of the truth at every training position, one history at a time, nothing padded."""
    return np.array([-logprobs[target] for logprobs, target in zip(*told_apart(network, corpus), strict=True)])


def told_apart(network: Any, corpus: Corpus) -> tuple[list[Array], list[int]]:
    network.eval()
    logprobs, targets = [], []
    with torch.inference_mode():
        for user in range(corpus.n_users):
            known = corpus.sequence_of(user)[:-2].astype(np.int64)
            for end in range(1, len(known)):
                history = torch.from_numpy(known[max(0, end - network.max_length) : end]).unsqueeze(0)
                scores = network.encode(history)[0, -1] @ network.item_vectors().T
                logprobs.append(scores.double().log_softmax(0).numpy())
                targets.append(int(known[end]))
    return logprobs, targets
