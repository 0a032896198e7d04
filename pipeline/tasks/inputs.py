"""What later steps read, made on the way if it is not in the store: corpora and item text vectors."""

from collections.abc import Mapping
from typing import Any

import torch

from ckd.pipeline.config.models import Configuration
from ckd.pipeline.device import chosen_device
from ckd.pipeline.named import refuse_names
from ckd.pipeline.plan import Plan
from ckd.pipeline.progress import bar, console
from ckd.stages.prepare.prepare import prepare_domain
from ckd.stages.teachers.contract import TextVectors
from ckd.stages.text.brought import bring_vectors
from ckd.stages.text.encoder import WEIGHTS
from ckd.stages.text.settings import TextSettings
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus, read_corpus
from ckd.storage.vectors import read_vectors


def prepare_all(configuration: Configuration) -> None:
    """Prepare every domain and source domain, and the text vectors that teachers read; print all statistics."""
    refuse_names(configuration, "prepare")
    plan = Plan(configuration)
    for domain in [*configuration.sources, *configuration.domains]:
        known = plan.store.find(plan.corpus(domain))
        if known is not None:
            console.print(f"{domain} is prepared: {summary(known)}")
        prepare(plan, domain)
    for domain, text in plan.texts():
        text_of(plan, domain, text, corpus_of(plan, domain), chosen_device(configuration.device))


def prepare(plan: Plan, domain: str) -> Artifact:
    """Return the corpus artifact of a domain or source domain; prints its statistics when it is made."""
    present = plan.store.find(plan.corpus(domain))
    if present is not None:
        return present
    artifact = prepare_domain(plan.store, *plan.domain(domain))
    console.print(f"prepared {domain}: {summary(artifact)}")
    return artifact


def summary(artifact: Artifact) -> str:
    """Return a corpus' statistics as one line."""
    facts = artifact.facts
    after = facts["after"]
    reasons = ", ".join(
        f"{count} {reason.replace('_', ' ')} in {file}"
        for file, counts in facts["rejected"].items()
        for reason, count in counts.items()
        if count
    )
    return (
        f"{after['users']:,} users, {after['items']:,} items, {after['interactions']:,} interactions "
        f"({after['mean_length']:.1f} per user), rejected rows: {reasons or 'none'}"
    )


def corpus_of(plan: Plan, domain: str) -> Corpus:
    """Return the corpus of a domain, in memory."""
    return read_corpus(prepare(plan, domain))


def _report_empty(domain: str, artifact: Artifact) -> None:
    empty, items = artifact.facts["empty"], artifact.facts["items"]
    if empty:
        none = f"{empty:,} of {items:,} items have none"
        console.print(f"text of {domain}: {none}; to a text teacher they are all the same")


def text_of(plan: Plan, domain: str, settings: TextSettings, corpus: Corpus, device: torch.device) -> TextVectors:
    """Return the item text vectors of a domain, in memory."""
    brought = plan.brought(domain, settings)
    if brought is not None:
        address = plan.text(domain, settings)
        return _loaded(plan.store.find(address) or bring_vectors(plan.store, corpus, brought), None, None)
    encoder = plan.fetch_encoder(settings)
    artifact = plan.store.find(plan.text(domain, settings))
    if artifact is None:
        with bar(f"text of {domain}", corpus.n_items, "items") as progress:
            from ckd.stages.text.encode import encode_corpus  # transformers takes seconds to import

            artifact = encode_corpus(plan.store, corpus, settings, encoder, device, progress.advance)
        _report_empty(domain, artifact)
    return _loaded(artifact, encoder.digests[WEIGHTS], settings.way())


def _loaded(artifact: Artifact, encoder: str | None, way: Mapping[str, Any] | None) -> TextVectors:
    vectors = read_vectors(artifact)
    if vectors is None:
        raise ValueError(f"{artifact.path} holds no vectors")
    return TextVectors(vectors, encoder, way)
