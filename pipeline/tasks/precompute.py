"""Labels of every teacher for every domain."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch

from ckd.pipeline.config.models import Configuration
from ckd.pipeline.device import chosen_device
from ckd.pipeline.named import refuse_names
from ckd.pipeline.plan import Plan
from ckd.pipeline.progress import bar
from ckd.pipeline.report.teachers import teacher_table
from ckd.pipeline.tasks.inputs import prepare, text_of
from ckd.stages.precompute.item_vectors import keep_item_vectors
from ckd.stages.precompute.label import Labeller, label_corpus, open_labeller
from ckd.stages.precompute.serving import serving_facts
from ckd.stages.precompute.shards import labelled_positions
from ckd.stages.teachers import TEACHERS
from ckd.stages.teachers.contract import Opening, TextVectors
from ckd.stages.teachers.frozen import digests
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus, read_corpus
from ckd.storage.errors import UserError
from ckd.storage.folds import Fold
from ckd.storage.labels import part_names
from ckd.storage.sql.agreement import write_agreement
from ckd.storage.sql.views import AGREEMENT
from ckd.storage.vectors import read_vectors


def precompute(configuration: Configuration) -> None:
    """Make the labels that are not in the store, and the agreement of every two teachers; print the table of labels.

    Raises:
        UserError: there is no teacher, or one is not trained yet or does not fit.
    """
    refuse_names(configuration, "precompute")
    plan = Plan(configuration)
    if not configuration.teachers:
        raise UserError("teachers: the configuration names no teacher, so there is nothing to precompute")
    pairs = [(teacher, domain) for teacher in configuration.teachers for domain in plan.labelled(teacher)]
    for teacher, domain in pairs:
        if teacher in plan.trained():
            for fold in (None, *plan.label_folds(teacher)):
                plan.frozen(teacher, domain, fold)  # one that is not trained yet is said before anything is labelled
    labels = {pair: labels_of(plan, *pair) for pair in pairs}
    for domain in configuration.domains:
        for one, other in plan.pairs(domain):
            agreement_of(plan, one, other, domain)
    teacher_table(labels)


def labels_of(plan: Plan, teacher: str, domain: str) -> Artifact:
    """Return the labels of one teacher for one domain: from the store, resumed, or computed."""
    prepared = prepare(plan, domain)
    way = plan.reads(teacher)
    if way is not None and plan.brought(domain, way) is None:
        plan.fetch_encoder(way)
    address = plan.labels(teacher, domain)
    if (present := plan.store.find(address)) is not None:
        return present
    corpus = read_corpus(prepared)
    device = chosen_device(plan.configuration.device)
    whole, serving, folds = _openers(plan, teacher, domain, corpus, device)
    total = labelled_positions(corpus, plan.configuration.labels)
    with bar(f"labels of {teacher} for {domain}", total, "positions") as progress:
        return label_corpus(
            plan.store,
            address,
            corpus,
            plan.configuration.labels,
            whole,
            device,
            progress.advance,
            progress.reuse,
            lambda: serving_facts(serving(), corpus, device),
            folds,
        )


def labeller_of(plan: Plan, teacher: str, domain: str, corpus: Corpus) -> Labeller:
    """Return what can be asked for single labels of a teacher: what `ckd precompute` asks, but nothing is written.

    Raises:
        UserError: the domain's text vectors, which the teacher reads, are not in the store.
    """
    way = plan.reads(teacher)
    if way is not None and plan.store.find(plan.text(domain, way)) is None:
        raise UserError(f"the store has no text vectors of {domain}; run `ckd prepare`")
    device = chosen_device(plan.configuration.device)
    whole, _, folds = _openers(plan, teacher, domain, corpus, device, keep=False)
    return open_labeller(corpus, plan.configuration.labels, whole, device, open_folds=folds)


def encode_items(plan: Plan, teacher: str, domain: str, fold: Fold | None) -> Artifact | None:
    """Return the item vectors of a teacher, or of that of a fold, from the store or made now; None if none are kept."""
    corpus = read_corpus(prepare(plan, domain))
    whole, _, folds = _openers(plan, teacher, domain, corpus, chosen_device(plan.configuration.device))
    if fold is None:
        whole()
    else:
        folds[fold.number - 1](corpus.inside(fold))
    address = plan.item_vectors(teacher, domain, fold)
    return None if address is None else plan.store.find(address)


class _Openers(NamedTuple):
    """What opens the teacher of all users, for labels and as it is served, and over a fold's users those of folds."""

    whole: Callable[[], Any]
    serving: Callable[[], Any]
    folds: list[Callable[[Corpus], Any]]


def _openers(
    plan: Plan, teacher: str, domain: str, corpus: Corpus, device: torch.device, keep: bool = True
) -> _Openers:
    way = plan.reads(teacher)
    text = None if way is None else text_of(plan, domain, way, corpus, device)
    splits, folds = plan.configuration.labels.splits, plan.label_folds(teacher)
    held_out = tuple(split for split in splits if split != "train") if folds else splits
    opened = _opener(plan, teacher, domain, text, device, None, keep)
    return _Openers(
        lambda: opened(corpus, held_out),
        lambda: opened(corpus, splits, serving=True),
        [partial(_opener(plan, teacher, domain, text, device, fold, keep), splits=("train",)) for fold in folds],
    )


def agreement_of(plan: Plan, one: str, other: str, domain: str) -> Artifact:
    """Return how far two teachers agree on a domain, from the store or computed from their labels now."""
    address = plan.agreement(one, other, domain)
    if (present := plan.store.find(address)) is not None:
        return present
    pair = labels_of(plan, one, domain), labels_of(plan, other, domain)
    most = min(sum(receipt.rows for name, receipt in each.files.items() if name in part_names(each)) for each in pair)
    with bar(f"agreement of {one} and {other} on {domain}", most, "positions") as progress:
        kept = write_agreement(plan.store, address, *pair)
        progress.advance(kept.files[AGREEMENT].rows)
    return kept


class _Open(Protocol):
    """Opens a teacher over a corpus, to label some splits or to be served."""

    def __call__(self, corpus: Corpus, splits: tuple[str, ...], serving: bool = False) -> Any: ...


def _opener(
    plan: Plan,
    teacher: str,
    domain: str,
    text: TextVectors | None,
    device: torch.device,
    fold: Fold | None = None,
    keep: bool = True,
) -> _Open:
    """Return what opens the teacher of all users or of a fold; its item vectors are encoded once, if they are kept."""
    settings = plan.configuration.teachers[teacher]
    module = TEACHERS.load(settings.kind)
    address, frozen = plan.item_vectors(teacher, domain, fold), plan.frozen(teacher, domain, fold)

    def opened(corpus: Corpus, splits: tuple[str, ...], serving: bool = False) -> Any:
        kept = None if address is None else plan.store.find(address)
        vectors = None if kept is None else read_vectors(kept)
        found = module.open_teacher(Opening(settings, frozen, corpus, text, device, serving, vectors, splits))
        if digests(frozen) != plan.frozen_digests(teacher, domain, fold):
            raise UserError(
                f"teachers.{teacher}: its files changed since this command began; run the same command again"
            )
        if keep and address is not None and kept is None:
            keep_item_vectors(plan.store, address, found)
        return found

    return opened
