"""The keys of the labels that one teacher gives to one domain, and of what comes of them. Imports nothing heavy."""

from collections.abc import Mapping, Sequence
from typing import Any

from ckd.stages.precompute.settings import LabelSettings
from ckd.storage.folds import FOLD_RULE
from ckd.storage.formats import AGREEMENT_FORMAT, LABEL_FORMAT
from ckd.storage.keys import Address


def label_address(
    teacher: str,
    domain: str,
    settings: LabelSettings,
    kind: str,
    frozen: Mapping[str, str],
    scoring: Mapping[str, Any],
    corpus_key: str,
    text_key: str | None,
    folds: Sequence[Mapping[str, str]] = (),
) -> Address:
    """Return where the labels belong.

    ``batch_size`` and ``shard_rows`` are left out: they change speed and the cut into files, not one label.

    Args:
        teacher, domain: names in the configuration; folders of the store, and no part of the key.
        settings: what is stored.
        kind: of the teacher.
        frozen: role to digest of the teacher's files.
        scoring: the teacher's settings that change its labels beside its files.
        corpus_key, text_key: the domain.
        folds: of labels out of fold, ``frozen`` of each fold's teacher, in order.
    """
    out_of_fold = {"folds": {"teachers": [dict(each) for each in folds], "rule": FOLD_RULE}} if folds else {}
    inputs = {
        **_opinion(kind, frozen, scoring, corpus_key, text_key),
        **kept_of(settings),
        **out_of_fold,
    }
    return Address("labels", inputs, (("teacher", teacher), ("domain", domain)))


def kept_of(settings: LabelSettings) -> dict[str, Any]:
    """Return the part of the inputs of labels that says what of a teacher's opinion is stored, and how."""
    return {
        "top_k": settings.top_k,
        "splits": list(settings.splits),
        "state": settings.state,
        # The name that it had first: labels of then are labels of now.
        "precision": "float32" if settings.precision == "exact" else settings.precision,
        "format": LABEL_FORMAT,
    }


def agreement_address(one: Address, other: Address) -> Address:
    """Return where the agreement of two teachers belongs; ``one`` has the labels of the first by name."""
    return Address("agreement", {"labels": [one.key, other.key], "format": AGREEMENT_FORMAT})


def item_vectors_address(
    kind: str, frozen: Mapping[str, str], scoring: Mapping[str, Any], corpus_key: str, text_key: str | None
) -> Address:
    """Return where the teacher's item vectors of a domain belong; the arguments are those of :func:`label_address`."""
    return Address("vectors", {**_opinion(kind, frozen, scoring, corpus_key, text_key), "format": LABEL_FORMAT})


def _opinion(
    kind: str, frozen: Mapping[str, str], scoring: Mapping[str, Any], corpus_key: str, text_key: str | None
) -> dict[str, Any]:
    """Return all that determines what a teacher says, whatever of it is stored."""
    return {"kind": kind, "teacher": dict(frozen), "scoring": dict(scoring), "corpus": corpus_key, "text": text_key}
