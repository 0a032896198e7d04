"""`ckd prepare`: corpora and item text vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ckd.pipeline.commands import configured

if TYPE_CHECKING:
    from ckd.pipeline.config.models import Configuration


@click.command(name="prepare")
@configured
def command(configuration: Configuration) -> None:
    """Turn raw files into corpora and item text vectors.

    The other commands do this by themselves when it is needed.
    """
    from ckd.pipeline.device import chosen_device
    from ckd.pipeline.inputs import corpus_of, prepare, summary, text_of
    from ckd.pipeline.plan import Plan
    from ckd.pipeline.progress import console

    plan = Plan(configuration)
    device = chosen_device(configuration.device)
    for domain in [*configuration.sources, *configuration.domains]:
        known = plan.store.find(plan.corpus(domain))
        if known is not None:
            console.print(f"{domain} is prepared: {summary(known)}")
        prepare(plan, domain)
    for domain in plan.text_domains():
        text_of(plan, domain, corpus_of(plan, domain), device)
