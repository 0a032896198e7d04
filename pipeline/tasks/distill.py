"""Students of every domain, with and without distillation. Imports no teacher."""

from collections.abc import Mapping

import torch

from ckd.pipeline.config.models import Configuration
from ckd.pipeline.device import chosen_device
from ckd.pipeline.plan import Plan
from ckd.pipeline.progress import epoch_lines
from ckd.pipeline.report.students import student_tables
from ckd.pipeline.tasks.inputs import prepare
from ckd.stages.distill.run import prepare_lesson, train_run
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import read_corpus
from ckd.storage.errors import UserError


def distill(configuration: Configuration) -> None:
    """Train the students that are not in the store and print the tables of all.

    Raises:
        UserError: there is no student, or labels that they learn from are not in the store.
    """
    plan = Plan(configuration)
    if not configuration.students:
        raise UserError("students: the configuration names no student, so there is nothing to train")
    labels = {
        domain: plan.ready_labels(domain) if True in plan.variants(domain) else {} for domain in configuration.domains
    }
    _check(plan, labels)
    device = chosen_device(configuration.device)
    runs = {
        (domain, student, distilled): run_of(plan, student, domain, labels[domain] if distilled else {}, device)
        for student, domain, distilled in plan.runs()
    }
    student_tables(runs, labels, configuration.evaluate)


def _check(plan: Plan, labels: Mapping[str, Mapping[str, Artifact]]) -> None:
    """Refuse damaged labels before anything is trained, where something is to be trained from them."""
    runs = [(domain, plan.run(student, domain, True)) for student, domain, distilled in plan.runs() if distilled]
    for domain in dict.fromkeys(domain for domain, address in runs if plan.store.find(address) is None):
        for artifact in labels[domain].values():
            artifact.verify()


def run_of(plan: Plan, student: str, domain: str, labels: Mapping[str, Artifact], device: torch.device) -> Artifact:
    """Return one student, from the store or trained now; without labels, without distillation."""
    address = plan.run(student, domain, bool(labels))
    if (present := plan.store.find(address)) is not None:
        return present
    configuration = plan.configuration
    prepared = prepare(plan, domain)
    corpus = read_corpus(prepared)
    return train_run(
        plan.store,
        address,
        corpus,
        configuration.students[student],
        configuration.distill,
        configuration.evaluate,
        (lambda: prepare_lesson(corpus, prepared, labels, configuration.distill, device)) if labels else None,
        configuration.seed,
        device,
        epoch_lines(f"{student}, {domain}, {'distilled' if labels else 'plain'}"),
    )
