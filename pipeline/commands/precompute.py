"""`ckd precompute`: the teachers' soft labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ckd.pipeline.commands import configured

if TYPE_CHECKING:
    from ckd.pipeline.config.models import Configuration
    from ckd.pipeline.plan import Plan
    from ckd.storage.artifact import Artifact


@click.command(name="precompute")
@configured
def command(configuration: Configuration) -> None:
    """Write the teachers' soft labels into the store.

    Every position of every sequence of every domain is labelled by every teacher, shard by shard. What is in the
    store already is kept; an interrupted run goes on with the missing shards.
    """
    from ckd.pipeline.plan import Plan
    from ckd.pipeline.report.teachers import teacher_table
    from ckd.storage.errors import UserError

    plan = Plan(configuration)
    if not configuration.teachers:
        raise UserError("teachers: the configuration names no teacher, so there is nothing to precompute")
    labels = {
        (teacher, domain): _labels(plan, teacher, domain)
        for teacher in configuration.teachers
        for domain in configuration.domains
    }
    teacher_table(labels)


def _labels(plan: Plan, teacher: str, domain: str) -> Artifact:
    from ckd.pipeline.inputs import prepare, text_of
    from ckd.storage.corpus import read_corpus

    corpus_artifact = prepare(plan, domain)
    # The text encoder may have to be fetched before the labels have a key.
    _ = plan.encoder if plan.needs_text(teacher) else None
    address = plan.labels(teacher, domain)
    if (present := plan.store.find(address)) is not None:
        return present
    return _compute(plan, teacher, domain, read_corpus(corpus_artifact), text_of)


def _compute(plan: Plan, teacher: str, domain: str, corpus: Any, text_of: Any) -> Artifact:
    import torch

    from ckd.pipeline.device import chosen_device
    from ckd.pipeline.progress import bar
    from ckd.stages.precompute.label import label_corpus
    from ckd.stages.precompute.serving import serving_facts
    from ckd.stages.teachers import TEACHERS

    device = chosen_device(plan.configuration.device)
    module = TEACHERS.load(plan.configuration.teachers[teacher].kind)
    folder = plan.frozen(teacher, domain)
    text = text_of(plan, domain, corpus, device) if plan.needs_text(teacher) else None
    with bar(f"labels of {teacher} for {domain}", corpus.n_positions, "positions") as advance:
        return label_corpus(
            plan.store,
            plan.labels(teacher, domain),
            corpus,
            plan.configuration.labels,
            lambda: module.open_teacher(folder, corpus, text, device, torch.float64),
            device,
            advance,
            lambda: serving_facts(module.open_teacher(folder, corpus, text, device, torch.float32), corpus, device),
        )
