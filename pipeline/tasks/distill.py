"""Students of every domain, with and without distillation. Imports no teacher."""

from collections.abc import Mapping, Sequence

import torch

from ckd.pipeline.choice import Choice
from ckd.pipeline.config.models import Configuration
from ckd.pipeline.device import chosen_device
from ckd.pipeline.named import plan_of
from ckd.pipeline.plan import Plan, Run
from ckd.pipeline.progress import epoch_lines
from ckd.pipeline.report.students import student_tables
from ckd.pipeline.tasks.inputs import prepare
from ckd.stages.distill.run import prepare_lesson, train_run
from ckd.stages.distill.train import Lesson
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import read_corpus
from ckd.storage.errors import UserError


def distill(configuration: Configuration, choice: Choice) -> None:
    """Train the students that are not in the store and print the tables of all.

    Args:
        configuration: what is asked for.
        choice: the students that are meant.

    Raises:
        UserError: there is no such student, or labels that they learn from are not in the store.
    """
    plan = plan_of(configuration)
    choice.check(configuration)
    wanted = choice.runs(plan)
    taught = dict.fromkeys(domain for run in wanted if run.distilled for domain in run.domains)
    labels = {domain: plan.ready_labels(domain) for domain in taught}
    _check(plan, wanted, labels)
    device = chosen_device(configuration.device)
    runs = {run: run_of(plan, run, labels, device) for run in wanted}
    student_tables(runs, labels, configuration.evaluate, configuration.distill.alpha)


def _check(plan: Plan, runs: Sequence[Run], labels: Mapping[str, Mapping[str, Artifact]]) -> None:
    """Refuse damaged labels before anything is trained, where something is to be trained from them."""
    missing = [run for run in runs if run.distilled and plan.store.find(plan.run(run)) is None]
    for domain in dict.fromkeys(domain for run in missing for domain in run.domains):
        for artifact in labels[domain].values():
            artifact.verify()


def run_of(plan: Plan, run: Run, labels: Mapping[str, Mapping[str, Artifact]], device: torch.device) -> Artifact:
    """Return one student, from the store or trained now.

    Args:
        plan: of the configuration.
        run: which one.
        labels: domain to teacher to its labels; those of the run's domains are read if it is distilled.
        device: where it is trained.

    Raises:
        UserError: it can't be trained so, or the GPU has no memory left.
    """
    address = plan.run(run)
    if (present := plan.store.find(address)) is not None:
        return present
    configuration = plan.configuration
    prepared = {domain: prepare(plan, domain) for domain in run.domains}
    corpora = {domain: read_corpus(artifact) for domain, artifact in prepared.items()}

    def lessons() -> dict[str, Lesson]:
        return {
            domain: prepare_lesson(corpus, prepared[domain], labels[domain], configuration.distill, device)
            for domain, corpus in corpora.items()
            if labels[domain]
        }

    try:
        return train_run(
            plan.store,
            address,
            corpora,
            configuration.students[run.student],
            configuration.distill,
            configuration.evaluate,
            lessons if run.distilled else None,
            configuration.seed,
            device,
            epoch_lines(str(run)),
        )
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{run}: the GPU has no memory left; lower distill.batch_size or distill.labels_in_memory, of a sweep "
            "--jobs, or set device: cpu"
        ) from error
