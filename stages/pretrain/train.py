"""Runs the training that a teacher's own package describes, and keeps what comes out."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ckd.stages.teachers import parallel
from ckd.stages.teachers.contract import DomainData, EpochReport, Job
from ckd.stages.teachers.loop import STATE
from ckd.storage.artifact import Artifact, Store
from ckd.storage.keys import Address


def pretrain_teacher(
    store: Store,
    address: Address,
    training: ModuleType,
    settings: Any,
    sources: Sequence[DomainData],
    device: torch.device,
    on_epoch: EpochReport,
) -> Artifact:
    """Return the teacher pre-trained on the source domains: from the store, or trained now.

    Args:
        store: where it is kept.
        address: its key.
        training: the module of its kind with ``pretrain_into``.
        settings: of the pre-training.
        sources: the source domains.
        device: where it runs.
        on_epoch: progress.
    """
    return _trained(store, address, settings, device, on_epoch, lambda job: training.pretrain_into(job, sources))


def adapt_teacher(
    store: Store,
    address: Address,
    training: ModuleType,
    settings: Any,
    start: Mapping[str, Path],
    domain: DomainData,
    device: torch.device,
    on_epoch: EpochReport,
) -> Artifact:
    """Return the teacher in the files ``start`` adapted to one domain: from the store, or trained now."""
    return _trained(store, address, settings, device, on_epoch, lambda job: training.adapt_into(job, start, domain))


def _trained(
    store: Store,
    address: Address,
    settings: Any,
    device: torch.device,
    on_epoch: EpochReport,
    train: Callable[[Job], dict[str, Any]],
) -> Artifact:
    """Take the artifact from the store or train it; of several processes the first one writes."""
    if parallel.rank() > 0:
        if not parallel.from_first(False):
            train(Job(None, settings, device))
        return parallel.first_then_others(lambda: _present(store, address))
    with store.draft(address, resume=True) as draft:
        found = store.find(address)
        parallel.from_first(found is not None)
        if found is None:
            facts = train(Job(draft, settings, device, on_epoch))
            draft.discard(STATE)
            found = draft.commit(facts)
    artifact = found
    return parallel.first_then_others(lambda: artifact)


def _present(store: Store, address: Address) -> Artifact:
    artifact = store.find(address)
    if artifact is None:
        raise ValueError(f"the first process left no {address.directory}")
    return artifact
