"""Labels of every teacher for every domain."""

from dataclasses import replace

from ckd.pipeline.config.models import Configuration
from ckd.pipeline.device import chosen_device
from ckd.pipeline.plan import Plan
from ckd.pipeline.progress import bar
from ckd.pipeline.report.teachers import teacher_table
from ckd.pipeline.tasks.inputs import prepare, text_of
from ckd.stages.precompute.label import label_corpus, labelled_positions
from ckd.stages.precompute.serving import serving_facts
from ckd.stages.teachers import TEACHERS
from ckd.stages.teachers.contract import Opening, Teacher
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import read_corpus
from ckd.storage.errors import UserError


def precompute(configuration: Configuration) -> None:
    """Make the labels that are not in the store and print the table of all.

    Raises:
        UserError: there is no teacher, or one is not trained yet or does not fit.
    """
    plan = Plan(configuration)
    if not configuration.teachers:
        raise UserError("teachers: the configuration names no teacher, so there is nothing to precompute")
    pairs = [(teacher, domain) for teacher in configuration.teachers for domain in plan.labelled(teacher)]
    teacher_table({pair: labels_of(plan, *pair) for pair in pairs})


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
    text = None if way is None else text_of(plan, domain, way, corpus, device)
    settings = plan.configuration.teachers[teacher]
    opening = Opening(settings, plan.frozen(teacher, domain), corpus, text, device)
    module = TEACHERS.load(settings.kind)

    def opened(serving: bool) -> Teacher:
        frozen: Teacher = module.open_teacher(replace(opening, serving=serving))
        return frozen

    total = labelled_positions(corpus, plan.configuration.labels)
    with bar(f"labels of {teacher} for {domain}", total, "positions") as progress:
        return label_corpus(
            plan.store,
            address,
            corpus,
            plan.configuration.labels,
            lambda: opened(serving=False),
            device,
            progress.advance,
            progress.reuse,
            lambda: serving_facts(opened(serving=True), corpus, device),
        )
