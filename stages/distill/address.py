"""The key of one trained student. Imports nothing heavy."""

from collections.abc import Collection, Mapping
from typing import Any

from ckd.stages.distill.settings import DistillSettings
from ckd.stages.settings import Settings
from ckd.storage.formats import RUN_FORMAT
from ckd.storage.keys import Address

_TRAINING = {"epochs", "patience", "batch_size", "average"}
_TEACHING = {"alpha", "temperature", "loss", "student_items", "rank_against", "item_start", "weighting", "curriculum"}


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
        "settings": settings.model_dump(mode="json"),
        "training": distill.model_dump(mode="json", include=_TRAINING),
        "teaching": _teaching(distill, {name for of in labels.values() for name in of}) if distilled else None,
        "mask_history": mask_history,
        "format": RUN_FORMAT,
    }
    return Address("runs", inputs)


def _teaching(distill: DistillSettings, teachers: Collection[str]) -> dict[str, Any]:
    own = distill.teacher_temperature.items()
    softened = {name: temperature for name, temperature in own if name in teachers and temperature != 1}
    return {**distill.model_dump(mode="json", include=_TEACHING), "teacher_temperature": softened}
