"""The keys of trained teachers. Imports nothing heavy."""

from collections.abc import Mapping, Sequence

from ckd.stages.settings import Settings
from ckd.stages.teachers.settings import AdaptationSettings
from ckd.storage.folds import FOLD_RULE, Fold
from ckd.storage.formats import TEACHER_FORMAT
from ckd.storage.keys import Address


def pretrain_address(kind: str, settings: Settings, inputs: Sequence[str]) -> Address:
    """Return where a teacher pre-trained on some source domains belongs.

    Args:
        kind: of the teacher.
        settings: of its pre-training, the seed among them.
        inputs: keys of the sources' text vectors (or corpora), in the order in which they are mixed.
    """
    return _address("pretrain", kind, settings, {"sources": list(inputs)})


def adapt_address(
    kind: str,
    settings: Settings,
    start: Mapping[str, str],
    corpus_key: str,
    text_key: str | None,
    fold: Fold | None = None,
) -> Address:
    """Return where a teacher adapted to one domain belongs.

    ``folds`` is left out: the teacher of all users is the same whatever other teachers stand beside it.

    Args:
        kind: of the teacher.
        settings: of its adaptation, the seed among them.
        start: digests of the frozen teacher that is adapted.
        corpus_key, text_key: the domain.
        fold: whose users it is not adapted on, if any.
    """
    domain: dict[str, object] = {"start": dict(start), "corpus": corpus_key, "text": text_key}
    if fold is not None:
        domain["fold"] = {**fold._asdict(), "rule": FOLD_RULE}
    return _address("adapt", kind, settings, domain)


def _address(step: str, kind: str, settings: Settings, inputs: dict[str, object]) -> Address:
    kept = settings.model_dump(mode="json", exclude={"folds"} if isinstance(settings, AdaptationSettings) else None)
    training = {"step": step, "teacher": kind, "settings": kept, "format": TEACHER_FORMAT}
    return Address("teachers", training | inputs)
