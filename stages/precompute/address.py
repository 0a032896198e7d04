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
    corpus_key: str,
    text_key: str | None,
    scoring: Mapping[str, Any] | None = None,
) -> Address:
    """Return where the labels belong.

    ``batch_size`` and ``shard_rows`` are left out: they change speed and the cut into files, not one label.
    """
    inputs: dict[str, Any] = {
        "teacher": dict(frozen),
        "corpus": corpus_key,
        "text": text_key,
        "top_k": settings.top_k,
        "splits": list(settings.splits),
        "state": settings.state,
        "precision": settings.precision,
        "format": LABEL_FORMAT,
    }
    if scoring:
        inputs["scoring"] = dict(scoring)
    return Address("labels", inputs, (("teacher", teacher), ("domain", domain)))
