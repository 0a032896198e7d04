"""Teachers from source domains, adapted to each target domain."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import torch

from ckd.pipeline.config.models import Configuration
from ckd.pipeline.device import chosen_device
from ckd.pipeline.memory import freed_after
from ckd.pipeline.named import refuse_names
from ckd.pipeline.plan import Plan
from ckd.pipeline.progress import console, epoch_lines, note_lines
from ckd.pipeline.tasks.inputs import corpus_of, text_of
from ckd.stages.pretrain.train import adapt_teacher, pretrain_teacher
from ckd.stages.teachers import TEACHERS, parallel
from ckd.stages.teachers.contract import DomainData
from ckd.storage.artifact import Artifact
from ckd.storage.errors import UserError
from ckd.storage.folds import Fold

PRETRAINED = "pretrained"


def pretrain(configuration: Configuration, export: Path | None, half: bool) -> None:
    """Train what is not in the store; copy each frozen teacher to ``export/<teacher>/<part>`` if asked.

    The teachers of folds are not copied: they say nothing of any user but their fold's.

    Started by torchrun, all processes train together and the first one writes and reports.

    Raises:
        UserError: no teacher of the configuration is trained.
    """
    refuse_names(configuration, "pretrain")
    plan = Plan(configuration)
    device = chosen_device(configuration.device)
    if not plan.trained():
        raise UserError(
            "teachers: none has `pretrain`, `adapt` or `train`, so there is nothing to train; "
            "frozen teachers are used by `ckd precompute` as they are"
        )
    if export is not None:
        _refuse_equal_folders(plan)
    with parallel.processes(device):
        console.quiet = parallel.rank() > 0
        for teacher in plan.trained():
            training = _training(plan, teacher)
            for part, fold, artifact in train(plan, teacher, training, device):
                console.print(f"{_title(teacher, part, fold)}: {artifact.path}")
                if export is not None and fold is None:
                    folder = export / teacher / part
                    parallel.on_first(partial(training.export, artifact.path, folder, half))


def _refuse_equal_folders(plan: Plan) -> None:
    for teacher in plan.trained():
        if plan.teacher(teacher).pretraining() is not None and PRETRAINED in plan.labelled(teacher):
            raise UserError(
                f"domains.{PRETRAINED}: --export names the folder of teacher {teacher} before its adaptation so; give "
                "the domain another name"
            )


def _training(plan: Plan, teacher: str) -> ModuleType:
    steps = {"pretrain_into": plan.teacher(teacher).pretraining(), "adapt_into": plan.teacher(teacher).adaptation()}
    offers = [function for function, settings in steps.items() if settings is not None]
    return TEACHERS.load_part(plan.configuration.teachers[teacher].kind, "training", [*offers, "export"])


def train(
    plan: Plan, teacher: str, training: ModuleType, device: torch.device
) -> Iterator[tuple[str, Fold | None, Artifact]]:
    """Yield each frozen part of a teacher, trained if need be: ``pretrained``, then the domains it is adapted to.

    Of a domain the teacher of all users comes first, then that of each fold.
    """
    if plan.teacher(teacher).pretraining() is not None:
        yield PRETRAINED, None, _pretrained(plan, teacher, training, device)
    if plan.teacher(teacher).adaptation() is not None:
        for domain in plan.labelled(teacher):
            data = _data(plan, teacher, domain, device)
            for fold in (None, *plan.teacher(teacher).user_folds()):
                yield domain, fold, _adapted(plan, teacher, domain, data, training, device, fold)


def _title(teacher: str, part: str, fold: Fold | None) -> str:
    return f"{teacher}, {part}" if fold is None else f"{teacher}, {part}, {fold}"


def _pretrained(plan: Plan, teacher: str, training: ModuleType, device: torch.device) -> Artifact:
    sources = [
        _data(plan, teacher, name, device, augment=plan.augments(teacher) is not None)
        for name in sorted(plan.configuration.sources)
    ]
    settings, title = plan.teacher(teacher).pretraining(), f"{teacher}, pre-training"
    reports = freed_after(epoch_lines(title)), note_lines(title)
    return pretrain_teacher(plan.store, plan.pretrained(teacher), training, settings, sources, device, *reports)


def _adapted(
    plan: Plan,
    teacher: str,
    domain: str,
    data: DomainData,
    training: ModuleType,
    device: torch.device,
    fold: Fold | None,
) -> Artifact:
    settings, title = plan.teacher(teacher).adaptation(), _title(teacher, domain, fold)
    address, start = plan.adapted(teacher, domain, fold), plan.start(teacher, domain)
    reports = freed_after(epoch_lines(title)), note_lines(title)
    return adapt_teacher(plan.store, address, training, settings, start, data, device, *reports, fold)


def _data(plan: Plan, teacher: str, domain: str, device: torch.device, augment: bool = False) -> DomainData:
    corpus = parallel.first_then_others(partial(corpus_of, plan, domain))
    ways = [plan.reads(teacher), plan.augments(teacher) if augment else None]
    text, augmented = (
        None if way is None else parallel.first_then_others(partial(text_of, plan, domain, way, corpus, device))
        for way in ways
    )
    return DomainData(corpus, text, augmented)
