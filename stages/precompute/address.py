"""The key of the labels that one teacher gives to one domain. Imports nothing heavy."""

from collections.abc import Mapping
from typing import Any

from ckd.stages.precompute.settings import LabelSettings
from ckd.storage.formats import LABEL_FORMAT
from ckd.storage.keys import Address


def label_address(
    teacher: str,
    domain: str,
    settings: LabelSettings,
    frozen: Mapping[str, str],
    scoring: Mapping[str, Any],
    corpus_key: str,
    text_key: str | None,
) -> Address:
    """Return where the labels belong.

    Args:
        teacher, domain: names in the configuration; folders of the store, and no part of the key.
        settings: what is stored.
        frozen: role to digest of the teacher's files.
        scoring: the teacher's settings that change its labels beside its files.
        corpus_key, text_key: the domain.

    ``batch_size`` and ``shard_rows`` are left out: they change speed and the cut into files, not one label.
    """
    inputs = {
        "teacher": dict(frozen),
        "scoring": dict(scoring),
        "corpus": corpus_key,
        "text": text_key,
        "top_k": settings.top_k,
        "splits": list(settings.splits),
        "state": settings.state,
        "precision": settings.precision,
        "format": LABEL_FORMAT,
    }
    return Address("labels", inputs, (("teacher", teacher), ("domain", domain)))
