"""`ckd distill`: students from the cached labels. Never imports a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckd.pipeline.commands import configured

if TYPE_CHECKING:
    import torch

    from ckd.pipeline.config.models import Configuration
    from ckd.pipeline.plan import Plan
    from ckd.storage.artifact import Artifact


@click.command(name="distill")
@configured
def command(configuration: Configuration) -> None:
    """Train students from the soft labels.

    Unless told otherwise each student is trained twice, without distillation and with it, and the two are compared.
    What is in the store already is not trained again.
    """
    from ckd.pipeline.device import chosen_device
    from ckd.pipeline.plan import Plan
    from ckd.pipeline.report.students import student_tables
    from ckd.storage.errors import UserError

    plan = Plan(configuration)
    if not configuration.students:
        raise UserError("students: the configuration names no student, so there is nothing to train")
    distilling = True in plan.variants()
    labels = {domain: plan.ready_labels(domain) if distilling else {} for domain in configuration.domains}
    device = chosen_device(configuration.device)
    runs = {
        (domain, student, distilled): _run(plan, student, domain, labels[domain] if distilled else {}, device)
        for student, domain, distilled in plan.runs()
    }
    student_tables(runs, labels, configuration.evaluate)


def _run(plan: Plan, student: str, domain: str, labels: dict[str, Artifact], device: torch.device) -> Artifact:
    from ckd.pipeline.inputs import prepare
    from ckd.pipeline.progress import epoch_lines
    from ckd.stages.distill.run import prepare_lesson, train_run
    from ckd.storage.corpus import read_corpus

    address = plan.run(student, domain, bool(labels))
    if (present := plan.store.find(address)) is not None:
        return present
    configuration = plan.configuration
    artifact = prepare(plan, domain)
    corpus = read_corpus(artifact)
    return train_run(
        plan.store,
        address,
        corpus,
        configuration.students[student],
        configuration.distill,
        configuration.evaluate,
        (lambda: prepare_lesson(corpus, artifact, labels, configuration.distill, device)) if labels else None,
        configuration.seed,
        device,
        epoch_lines(f"{student}, {domain}, {'distilled' if labels else 'plain'}"),
    )
