"""`ckd distill`: students from the cached labels. Never imports a teacher."""

import click

from ckd.pipeline.commands import Request, requested
from ckd.pipeline.commands.explain import explained


@click.command(name="distill")
@click.option(
    "--grid",
    "grids",
    multiple=True,
    metavar="KEY=V1,V2,...",
    help="Sweep: train the students for each of these values of a key; several grids for each combination. Values are "
    "YAML as for --set; commas inside [], {} and quotes separate none: distill.loss={in_batch: 1},{top_k: 1}.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    metavar="N",
    help="Sweep: train each with N seeds, from the configuration's seed on.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Sweep: processes that train at the same time.  [default: one per GPU, without one cores / threads]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Sweep: threads of each process.  [default: 1]",
)
@click.option(
    "--student",
    multiple=True,
    metavar="NAME",
    help="Only this student; may be given several times. --explain is of one.  [default: all; of --explain the first]",
)
@click.option(
    "--domain",
    multiple=True,
    metavar="NAME",
    help="Only the students of this domain, a joint one with all of its domains; may be given several times.",
)
@requested
@explained
def command(
    request: Request,
    grids: tuple[str, ...],
    seeds: int | None,
    jobs: int | None,
    threads: int | None,
    student: tuple[str, ...],
    domain: tuple[str, ...],
) -> None:
    """Train students from the soft labels.

    Unless told otherwise each student is trained twice, without distillation and with it, and the two are compared.
    What is in the store already is not trained again.

    With --explain nothing is trained: it shows what a student is taught at each position.

    With --grid, --seeds, --jobs or --threads this is a sweep: its runs are trained by several processes on this
    machine (or by those of `cluster: {scheduler: tcp://HOST:PORT}`), runs that several points share only once, and
    listed as by `ckd runs`: ordered by validation, which alone chooses. A run that fails stops no other.
    """
    from ckd.pipeline.choice import Choice

    choice = Choice(student, domain)
    if grids or any(option is not None for option in (seeds, jobs, threads)):
        from ckd.pipeline.sweep.sweep import sweep

        sweep(request, grids, seeds, jobs, threads, choice)
        return
    from ckd.pipeline.tasks.distill import distill

    distill(request.load(), choice)
