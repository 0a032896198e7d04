"""`ckd pretrain`: teachers from source domains, adapted to each target domain."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click

from ckd.pipeline.commands import configured

if TYPE_CHECKING:
    import torch

    from ckd.pipeline.config.models import Configuration
    from ckd.pipeline.plan import Plan


@click.command(name="pretrain")
@click.option(
    "--export",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Also copy each frozen teacher to DIR/<teacher>/pretrained and DIR/<teacher>/<domain>.",
)
@click.option("--half", is_flag=True, help="Round the exported weights to float16: half the size.")
@configured
def command(configuration: Configuration, export: Path | None, half: bool) -> None:
    """Train or adapt the teachers, once.

    A teacher with `pretrain` is trained on the source domains; a teacher with `adapt` is then adapted to each
    domain on its training split. What is in the store already is not trained again.
    """
    from ckd.pipeline.device import chosen_device
    from ckd.pipeline.plan import Plan
    from ckd.pipeline.progress import console
    from ckd.storage.errors import UserError

    plan = Plan(configuration)
    device = chosen_device(configuration.device)
    trained = [name for name in configuration.teachers if plan.pretrained_by_us(name) or plan.adapted_by_us(name)]
    if not trained:
        raise UserError(
            "no teacher in the configuration has `pretrain` or `adapt`, so there is nothing to train; "
            "frozen checkpoints are used by `ckd precompute` as they are"
        )
    for teacher in trained:
        training = importlib.import_module(f"{_package(plan, teacher)}.training")
        for part, folder in _train(plan, teacher, training, device):
            console.print(f"{teacher}, {part}: {folder}")
            if export is not None:
                training.export(folder, export / teacher / part, half)


def _package(plan: Plan, teacher: str) -> str:
    from ckd.stages.teachers import TEACHERS

    return TEACHERS.load(plan.configuration.teachers[teacher].kind).__name__


def _train(plan: Plan, teacher: str, training: ModuleType, device: torch.device) -> list[tuple[str, Path]]:
    from ckd.pipeline.inputs import corpus_of, text_of
    from ckd.pipeline.progress import epoch_lines
    from ckd.stages.pretrain.train import adapt_teacher, pretrain_teacher

    configuration = plan.configuration
    settings = configuration.teachers[teacher]
    made = []
    if plan.pretrained_by_us(teacher):
        sources = []
        for name in sorted(configuration.sources):
            corpus = corpus_of(plan, name)
            sources.append((corpus, text_of(plan, name, corpus, device)))
        address = plan.pretrained(teacher)
        report = epoch_lines(f"{teacher}, pre-training")
        artifact = pretrain_teacher(
            plan.store, address, training, settings.pretrain, sources, configuration.seed, device, report
        )
        made.append(("pretrained", artifact.path))
    for domain in configuration.domains if plan.adapted_by_us(teacher) else ():
        corpus = corpus_of(plan, domain)
        text = text_of(plan, domain, corpus, device) if plan.needs_text(teacher) else None
        address = plan.adapted(teacher, domain)
        report = epoch_lines(f"{teacher}, {domain}")
        start = plan.start(teacher, domain)
        artifact = adapt_teacher(
            plan.store, address, training, start, settings.adapt, corpus, text, configuration.seed, device, report
        )
        made.append((domain, artifact.path))
    return made
