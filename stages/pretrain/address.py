"""The keys of trained teachers. Imports nothing heavy."""

from collections.abc import Mapping, Sequence

from ckd.stages.settings import Settings
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
    kind: str, settings: Settings, start: Mapping[str, str], corpus_key: str, text_key: str | None
) -> Address:
    """Return where a teacher adapted to one domain belongs.

    Args:
        kind: of the teacher.
        settings: of its adaptation, the seed among them.
        start: digests of the frozen teacher that is adapted.
        corpus_key, text_key: the domain.
    """
    domain: dict[str, object] = {"start": dict(start), "corpus": corpus_key, "text": text_key}
    return _address("adapt", kind, settings, domain)


def _address(step: str, kind: str, settings: Settings, inputs: dict[str, object]) -> Address:
    training = {"step": step, "teacher": kind, "settings": settings.model_dump(mode="json"), "format": TEACHER_FORMAT}
    return Address("teachers", training | inputs)
