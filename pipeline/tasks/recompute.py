"""Stored labels beside what their teachers say now, for a sample of users. Writes nothing."""

from collections.abc import Iterator, Sequence

import click
import numpy as np
import numpy.typing as npt

from ckd.pipeline.device import chosen_device
from ckd.pipeline.plan import Plan
from ckd.pipeline.progress import bar, console
from ckd.pipeline.report.layout import number, print_numbers
from ckd.pipeline.sample import Sample, sampled
from ckd.pipeline.tasks.precompute import labeller_of
from ckd.stages.precompute.again import Agreement, agreement
from ckd.stages.precompute.machine import MADE_ON, made_on
from ckd.stages.precompute.shards import Shard
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import read_corpus
from ckd.storage.errors import DamagedArtifact, UserError
from ckd.storage.labels import FOLDS, in_order, part_names, read_labels
from ckd.storage.vectors import read_vectors

NUMBERS = [
    "users",
    "positions",
    "identical",
    "logprobs",
    "logsumexp",
    "states",
    "vectors",
    "other items",
    "other ranks",
]


def recompute(plan: Plan, sample: Sample) -> bool:
    """Ask the teachers of the configuration again, print how far they agree with the stored labels; return whether.

    Labels that are not in the store, or whose teacher cannot be opened from it, are left out, and that is said.
    """
    rows, holds = [], True
    for teacher in plan.configuration.teachers:
        for domain in plan.labelled(teacher):
            try:
                users, found, same_machine = _asked_again(plan, teacher, domain, sample)
            except UserError as error:
                click.echo(f"labels of {teacher} for {domain} are not compared: {error}")
                holds = holds and not isinstance(error, DamagedArtifact)
                continue
            rows.append([teacher, domain, *_cells(users, found)])
            if not found.holds(plan.configuration.labels.precision, same_machine):
                holds = False
                bound = "where they were computed, every bit is the same" if same_machine else "that is beyond rounding"
                click.echo(f"labels of {teacher} for {domain} are NOT what the teacher says now: {bound}")
    if rows:
        print_numbers(console, ["teacher", "domain"], NUMBERS, rows)
        console.print(
            "identical: share of positions with not one bit changed; logprobs, logsumexp, states, vectors: largest "
            "difference; other items: share of positions whose items or their order changed; other ranks: of the truth."
        )
    return holds


def _asked_again(plan: Plan, teacher: str, domain: str, sample: Sample) -> tuple[int, Agreement, bool]:
    labels, prepared = plan.store.find(plan.labels(teacher, domain)), plan.store.find(plan.corpus(domain))
    if labels is None or prepared is None:
        what, command = ("corpus", "prepare") if labels is not None else ("labels", "precompute")
        raise UserError(f"the store has no {what} of this configuration; run `ckd {command}`")
    corpus = read_corpus(prepared)
    users = sampled(corpus.user_ids.to_pylist(), sample, plan.configuration.seed)
    parts = _parts_of(labels, users)
    stored = read_labels(parts, corpus)
    stored = stored.take(np.flatnonzero(np.isin(stored.user, users)))
    labeller = labeller_of(plan, teacher, domain, corpus)
    blocks = []
    with bar(f"{teacher} for {domain}, asked again", len(users), "users") as progress:
        for user in users:
            blocks.append(labeller.block(Shard(0, user, user + 1)))
            progress.advance(1)
    tables = list(_tables(labels))
    here = made_on(chosen_device(plan.configuration.device))
    same_machine = all(receipt.facts.get(MADE_ON) == here for receipt in parts.files.values())
    return len(users), agreement(stored, in_order(blocks), tables, labeller.vectors), same_machine


def _parts_of(labels: Artifact, users: Sequence[int]) -> Artifact:
    """Return the labels with the shards of some users alone."""
    files = labels.files
    chosen = [
        name
        for name in part_names(labels)
        if any(files[name].facts["first_user"] <= user < files[name].facts["last_user"] for user in users)
    ]
    return Artifact(labels.path, {**labels.manifest, "files": {name: files[name].as_json() for name in chosen}})


def _tables(labels: Artifact) -> Iterator[npt.NDArray[np.float32]]:
    for fold in range(1 + labels.facts.get(FOLDS, 0)):
        vectors = read_vectors(labels, fold)
        if vectors is not None:
            yield vectors


def _cells(users: int, found: Agreement) -> list[str]:
    shares = [f"{share:.1%}" for share in (found.items, found.ranks)]
    largest = [number(value, ".1e") if value else number(value, "g") for value in _differences(found)]
    return [f"{users:,}", f"{found.positions:,}", f"{found.identical:.1%}", *largest, *shares]


def _differences(found: Agreement) -> list[float | None]:
    return [found.logprobs, found.logsumexp, found.states, found.vectors]
