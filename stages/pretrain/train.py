"""Runs the training that a teacher's own package describes, and keeps what comes out."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ckd.stages.teachers import parallel
from ckd.stages.teachers.contract import DomainData, EpochReport, Job
from ckd.stages.teachers.state import made_on
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus
from ckd.storage.draft import Draft
from ckd.storage.errors import UserError
from ckd.storage.folds import Fold
from ckd.storage.keys import Address
from ckd.storage.progress import TRAINING_STATES, forget_training, training_states
from ckd.storage.store import Store

Note = Callable[[str], None]
"""Called with what a person should know of a training, a phrase."""


def pretrain_teacher(
    store: Store,
    address: Address,
    training: ModuleType,
    settings: Any,
    sources: Sequence[DomainData],
    device: torch.device,
    on_epoch: EpochReport,
    note: Note = lambda _: None,
) -> Artifact:
    """Return the teacher pre-trained on the source domains: from the store, gone on with, or trained now.

    Args:
        store: where it is kept.
        address: its key.
        training: the module of its kind with ``pretrain_into``.
        settings: of the pre-training.
        sources: the source domains.
        device: where it runs.
        on_epoch: progress.
        note: told whether an interrupted training is gone on with.
    """

    def train(draft: Draft | None, state: Path | None) -> dict[str, Any]:
        facts: dict[str, Any] = training.pretrain_into(Job(draft, settings, device, on_epoch, state), sources)
        return facts

    return _trained(store, address, train, made_on(device), note)


def adapt_teacher(
    store: Store,
    address: Address,
    training: ModuleType,
    settings: Any,
    start: Mapping[str, Path],
    domain: DomainData,
    device: torch.device,
    on_epoch: EpochReport,
    note: Note = lambda _: None,
    fold: Fold | None = None,
) -> Artifact:
    """Return the teacher in the files ``start`` adapted to one domain: from the store, gone on with, or trained now.

    Args:
        store, address, training, settings, device, on_epoch, note: as in :func:`pretrain_teacher`.
        start: files of the frozen teacher that is adapted, by role.
        domain: what it is adapted to.
        fold: whose users it never sees: it is trained on the users of the other folds, and its epoch is chosen on their
            validation targets alone.

    Raises:
        UserError: there is nobody to train on.
    """

    def train(draft: Draft | None, state: Path | None) -> dict[str, Any]:
        seen = domain if fold is None else replace(domain, corpus=_outside(domain.corpus, fold))
        facts: dict[str, Any] = training.adapt_into(Job(draft, settings, device, on_epoch, state), start, seen)
        return facts if fold is None else facts | {"fold": fold._asdict(), "users": seen.corpus.n_users}

    return _trained(store, address, train, made_on(device), note)


def _outside(corpus: Corpus, fold: Fold) -> Corpus:
    others = corpus.outside(fold)
    if not others.n_users:
        raise UserError(
            f"nobody to train on: all {corpus.n_users} users of corpus {corpus.key[:16]} are in {fold}, whose teacher "
            "sees the others only; set the teacher's folds to 0, or add users"
        )
    return others


@dataclass(frozen=True)
class _Left:
    """What an interrupted training left: the file with its state, and the seconds it took to come there."""

    state: Path | None = None
    seconds: float = 0.0


def _trained(
    store: Store,
    address: Address,
    train: Callable[[Draft | None, Path | None], dict[str, Any]],
    machine: Mapping[str, Any],
    note: Note,
) -> Artifact:
    """Take the artifact from the store or train it; of several processes the first one writes."""
    present = parallel.from_first(lambda: store.find(address))
    if present is not None:
        return present
    with ExitStack() as stack:
        draft = parallel.on_first(lambda: stack.enter_context(store.draft(address, resume=True)))
        present = parallel.from_first(lambda: store.find(address))  # another process may just have finished it
        if present is not None:
            return present
        left = parallel.from_first(lambda: _resumable(draft, machine, note))
        facts = train(draft, left.state)
        return parallel.from_first(lambda: _commit(draft, facts, left.seconds))


def _resumable(draft: Draft | None, machine: Mapping[str, Any], note: Note) -> _Left:
    if draft is None:
        return _Left()
    draft.keep_only(TRAINING_STATES)
    for epoch, name in training_states(draft).items():
        if (receipt := draft.receipt(name)) is None:
            continue
        if receipt.facts.get("made_on") == machine:
            note(f"goes on after epoch {epoch} of an interrupted run")
            return _Left(draft.local(name, receipt), float(receipt.facts["seconds"]))
        note(
            f"starts anew: the interrupted run was on {_words(receipt.facts.get('made_on') or {})}, this one is on "
            f"{_words(machine)}, and would not end with the same numbers"
        )
        return _Left()
    if any((draft.partial / name).exists() for name in TRAINING_STATES):
        note("starts anew: an interrupted run left no whole state")
    return _Left()


def _words(machine: Mapping[str, Any]) -> str:
    return f"{machine.get('processes', 'unknown')} processes of {machine.get('device', 'an unknown device')}"


def _commit(draft: Draft | None, facts: dict[str, Any], earlier: float) -> Artifact:
    if draft is None:
        raise ValueError("only the first process has a draft")
    forget_training(draft)
    return draft.commit(facts, earlier_seconds=earlier)
