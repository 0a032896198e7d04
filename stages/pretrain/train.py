"""Runs the training that a teacher's own package describes, and keeps what comes out."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ckd.stages.teachers.contract import EpochReport, TextVectors
from ckd.storage.artifact import Artifact, Store
from ckd.storage.corpus import Corpus
from ckd.storage.keys import Address


def pretrain_teacher(
    store: Store,
    address: Address,
    training: ModuleType,
    settings: Any,
    sources: Sequence[tuple[Corpus, TextVectors, TextVectors | None]],
    seed: int,
    device: torch.device,
    on_epoch: EpochReport,
) -> Artifact:
    """Return the teacher pre-trained on the source domains: from the store, or trained now.

    Args:
        store: where it is kept.
        address: its key.
        training: the module of its kind with ``pretrain_into``.
        settings: of the pre-training.
        sources: corpora, text vectors and word-dropped text vectors of the source domains.
        seed: of the training.
        device: where it runs.
        on_epoch: progress.
    """
    with store.draft(address) as draft:
        if (present := store.find(address)) is not None:
            return present
        return draft.commit(training.pretrain_into(draft, settings, sources, seed, device, on_epoch))


def adapt_teacher(
    store: Store,
    address: Address,
    training: ModuleType,
    start: Path,
    settings: Any,
    corpus: Corpus,
    text: TextVectors | None,
    seed: int,
    device: torch.device,
    on_epoch: EpochReport,
) -> Artifact:
    """Return the teacher in ``start`` adapted to one domain: from the store, or trained now."""
    with store.draft(address) as draft:
        if (present := store.find(address)) is not None:
            return present
        return draft.commit(training.adapt_into(draft, start, settings, corpus, text, seed, device, on_epoch))
