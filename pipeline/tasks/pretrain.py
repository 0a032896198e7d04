"""Teachers from source domains, adapted to each target domain."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch

from ckd.pipeline.config.models import Configuration
from ckd.pipeline.device import chosen_device
from ckd.pipeline.plan import Plan
from ckd.pipeline.progress import console, epoch_lines
from ckd.pipeline.tasks.inputs import corpus_of, text_of
from ckd.stages.pretrain.train import adapt_teacher, pretrain_teacher
from ckd.stages.teachers import TEACHERS
from ckd.storage.errors import UserError

PRETRAINED = "pretrained"


def pretrain(configuration: Configuration, export: Path | None, half: bool) -> None:
    """Train what is not in the store; copy each frozen teacher to ``export/<teacher>/<part>`` if asked.

    Raises:
        UserError: no teacher of the configuration is trained.
    """
    plan = Plan(configuration)
    device = chosen_device(configuration.device)
    trained = [name for name in configuration.teachers if plan.pretrained_by_us(name) or plan.adapted_by_us(name)]
    if not trained:
        raise UserError(
            "teachers: none has `pretrain` or `adapt`, so there is nothing to train; "
            "frozen checkpoints are used by `ckd precompute` as they are"
        )
    for teacher in trained:
        kind = TEACHERS.load(configuration.teachers[teacher].kind)
        training = importlib.import_module(f"{kind.__name__}.training")
        for part, folder in train(plan, teacher, training, device):
            console.print(f"{teacher}, {part}: {folder}")
            if export is not None:
                training.export(folder, export / teacher / part, half)


def train(plan: Plan, teacher: str, training: ModuleType, device: torch.device) -> Iterator[tuple[str, Path]]:
    """Yield each frozen part of a teacher, trained if need be: ``pretrained``, then the domains it is adapted to."""
    if plan.pretrained_by_us(teacher):
        yield PRETRAINED, _pretrained(plan, teacher, training, device)
    for domain in plan.configuration.domains if plan.adapted_by_us(teacher) else ():
        yield domain, _adapted(plan, teacher, domain, training, device)


def _pretrained(plan: Plan, teacher: str, training: ModuleType, device: torch.device) -> Path:
    configuration = plan.configuration
    sources = []
    for name in sorted(configuration.sources):
        corpus = corpus_of(plan, name)
        sources.append((corpus, text_of(plan, name, corpus, device), None))
    settings = configuration.teachers[teacher].pretrain
    report = epoch_lines(f"{teacher}, pre-training")
    address = plan.pretrained(teacher)
    return pretrain_teacher(plan.store, address, training, settings, sources, settings.seed, device, report).path


def _adapted(plan: Plan, teacher: str, domain: str, training: ModuleType, device: torch.device) -> Path:
    settings = plan.configuration.teachers[teacher].adapt
    corpus = corpus_of(plan, domain)
    text = text_of(plan, domain, corpus, device) if plan.needs_text(teacher) else None
    return adapt_teacher(
        plan.store,
        plan.adapted(teacher, domain),
        training,
        plan.start(teacher, domain),
        settings,
        corpus,
        text,
        settings.seed,
        device,
        epoch_lines(f"{teacher}, {domain}"),
    ).path
