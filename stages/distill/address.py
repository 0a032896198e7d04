"""The key of one trained student. Imports nothing heavy."""

from collections.abc import Collection, Mapping
from typing import Any

from ckd.stages.distill.settings import DistillSettings
from ckd.stages.settings import Settings
from ckd.storage.formats import RUN_FORMAT
from ckd.storage.keys import Address

_TRAINING = {"epochs", "patience", "batch_size", "learning_rate", "weight_decay"}
_TEACHING = {"alpha", "temperature", "loss", "student_items", "rank_against", "weighting", "curriculum"}


def run_address(
    student: str,
    domain: str,
    settings: Settings,
    distill: DistillSettings,
    mask_history: bool,
    seed: int,
    corpus_key: str,
    label_keys: Mapping[str, str],
) -> Address:
    """Return where a student belongs.

    Args:
        student, domain: names in the configuration.
        settings: of the student.
        distill: of the training; what concerns teaching is left out of the key of a student without teachers.
        mask_history: whether validation, which chooses the epoch, masks the history.
        seed: of the training.
        corpus_key: the domain's corpus.
        label_keys: teacher to key of its labels; empty for a student without distillation.
    """
    inputs: dict[str, Any] = {
        "student": student,
        "domain": domain,
        "distilled": bool(label_keys),
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
        "training": distill.model_dump(mode="json", include=_TRAINING),
        "teaching": _teaching(distill, label_keys) if label_keys else None,
        "mask_history": mask_history,
        "corpus": corpus_key,
        "labels": dict(label_keys),
        "format": RUN_FORMAT,
    }
    return Address("runs", inputs)


def _teaching(distill: DistillSettings, teachers: Collection[str]) -> dict[str, Any]:
    own = distill.teacher_temperature.items()
    softened = {name: temperature for name, temperature in own if name in teachers and temperature != 1}
    return {**distill.model_dump(mode="json", include=_TEACHING), "teacher_temperature": softened}
