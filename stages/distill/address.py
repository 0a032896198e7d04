"""The key of one trained student. Imports nothing heavy."""

from collections.abc import Mapping
from typing import Any

from ckd.stages.distill.relevant import relevant_student, relevant_teaching
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.settings import Settings
from ckd.storage.formats import RUN_FORMAT
from ckd.storage.keys import Address

_TRAINING = {"epochs", "patience", "batch_size", "average"}


def run_address(
    student: str,
    settings: Settings,
    distill: DistillSettings,
    mask_history: bool,
    seed: int,
    corpora: Mapping[str, str],
    labels: Mapping[str, Mapping[str, str]],
) -> Address:
    """Return where a student belongs.

    Settings that can't change its training are not in the key: see :mod:`ckd.stages.distill.relevant`.

    Args:
        student: name in the configuration.
        settings: of the student.
        distill: of the training; what concerns teaching is left out of the key of a student without teachers.
        mask_history: whether validation, which chooses the epoch, masks the history.
        seed: of the training.
        corpora: domain to the key of its corpus, of all domains of the student, in their order.
        labels: domain to teacher to the key of its labels; empty for a student without distillation.
    """
    distilled = any(labels.values())
    inputs: dict[str, Any] = {
        "student": student,
        "domains": list(corpora),
        "corpora": dict(corpora),
        "labels": {domain: dict(labels.get(domain, {})) for domain in corpora},
        "distilled": distilled,
        "seed": seed,
        "settings": relevant_student(settings, corpora),
        "training": distill.model_dump(mode="json", include=_TRAINING),
        "teaching": relevant_teaching(distill, list(labels.values())) if distilled else None,
        "mask_history": mask_history,
        "format": RUN_FORMAT,
    }
    return Address("runs", inputs)
