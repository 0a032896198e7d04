"""`ckd recommend`: the best items of users."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ckd.pipeline.commands import given, of_a_run

if TYPE_CHECKING:
    from ckd.pipeline.stored import Place

_OF_USERS = ("users", "mask_seen", "unknown", "titles")


@click.command(name="recommend")
@click.option("--domain", metavar="NAME", help="Domain to recommend in, of a student that has several.")
@click.option(
    "--users",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Whom to recommend to: Parquet, CSV, TSV or JSONL.  [default: all users of the domain]",
)
@click.option("--k", type=click.IntRange(min=1), default=20, show_default=True, help="Items of each list.")
@click.option(
    "--mask-seen/--keep-seen",
    default=False,
    help="Leave out what a user has had; by default such items are kept, as students are evaluated.",
)
@click.option(
    "--unknown",
    type=click.Choice(("refuse", "skip")),
    default="refuse",
    show_default=True,
    help="What to do with users and items that the domain does not have.",
)
@click.option(
    "--every-position",
    is_flag=True,
    help="For the history before each item of each user: what a teacher of kind scores reads.",
)
@click.option("--titles", is_flag=True, help="Give the items' titles too.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A .parquet or .csv file to write.  [default: CSV to standard output]",
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@of_a_run
def command(
    place: Place,
    run: str,
    domain: str | None,
    users: Path | None,
    k: int,
    mask_seen: bool,
    unknown: str,
    every_position: bool,
    titles: bool,
    out: Path | None,
    force: bool,
) -> None:
    """Write the best items of each user: user_id, rank, item_id, score.

    RUN is the key of a run or the beginning of one, or STUDENT/DOMAIN, the distilled run of the configuration
    (STUDENT/DOMAIN/plain, the one without distillation).

    A file of --users with the column user_id alone names users of the domain; their history is their whole sequence,
    the validation and test items included. With a column items (a list of item IDs, oldest first), or with item_id and
    perhaps timestamp (a row per interaction), it holds histories, of anybody. Equal scores stand in order of item code.

    --every-position writes a Parquet file of user_id, position, items and scores instead, log-probabilities over the
    catalogue: with teachers: {NAME: {kind: scores, path: FILE, scores: logprob}} the student teaches others.
    """
    if every_position:
        if out is None:
            raise click.UsageError("--every-position writes a Parquet file; name it with --out")
        _refuse_beside_positions()
        from ckd.pipeline.tasks.recommend import recommend_positions

        recommend_positions(place, run, domain, k, out, force)
        return
    from ckd.pipeline.tasks.recommend import recommend

    recommend(place, run, domain, users, k, mask_seen, unknown == "skip", titles, out, force)


def _refuse_beside_positions() -> None:
    for parameter in given():
        if parameter.name in _OF_USERS:
            option = " or ".join((*parameter.opts, *parameter.secondary_opts))
            raise click.UsageError(f"{option} is of lists for users; leave it out beside --every-position")
