"""The key of one trained student. Imports nothing heavy."""

from collections.abc import Mapping
from typing import Any

from ckd.stages.distill.settings import DistillSettings
from ckd.stages.settings import Settings
from ckd.storage.formats import RUN_FORMAT
from ckd.storage.keys import Address

_TRAINING = {"epochs", "patience", "batch_size", "learning_rate", "weight_decay"}
_TEACHING = {"alpha", "temperature", "loss", "weighting", "curriculum"}


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
        "teaching": distill.model_dump(mode="json", include=_TEACHING) if label_keys else None,
        "mask_history": mask_history,
        "corpus": corpus_key,
        "labels": dict(label_keys),
        "format": RUN_FORMAT,
    }
    return Address("runs", inputs)
