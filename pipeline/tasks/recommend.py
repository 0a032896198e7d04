"""The best items of users, from a trained student."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pyarrow as pa

from ckd.pipeline.device import chosen_device
from ckd.pipeline.progress import bar, errors
from ckd.pipeline.rows import write_csv
from ckd.pipeline.stored import Place, choose_run, corpora_in
from ckd.stages.export.audience import Audience, everybody, read_audience
from ckd.stages.export.out import try_out, usable, write_out
from ckd.stages.export.positions import position_lists, position_schema
from ckd.stages.export.recommend import best_lists, list_schema
from ckd.stages.export.student import subject_of
from ckd.stages.students.contract import ScoresHistories, by_name
from ckd.stages.students.trained import load_student
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError
from ckd.storage.parquet import write_batches

FORMATS = (".parquet", ".csv")


def recommend(
    place: Place,
    name: str,
    domain: str | None,
    users: Path | None,
    k: int,
    mask_seen: bool,
    skip_unknown: bool,
    titles: bool,
    out: Path | None,
    force: bool,
) -> None:
    """Write the best items of each user to a file, or as CSV to standard output.

    Args:
        place: where runs are looked for.
        name: of the run, as the command line has it.
        domain: which of the run's domains.
        users: file that names users or holds histories; without one, all users of the domain.
        k: items of each list.
        mask_seen: leave out what a user has had.
        skip_unknown: leave unknown users and items out instead of refusing them.
        titles: give the items' titles too.
        out: ``.parquet`` or ``.csv``.
        force: replace ``out``.

    Raises:
        UserError: there is no such run, or a file is wrong.
    """
    if out is not None:
        _refuse(out, force, FORMATS)
    run, served, corpora = _found(place, name, domain)
    corpus = corpora[served]
    audience = everybody(corpus) if users is None else _audience(users, corpus, served, skip_unknown)
    for note in audience.notes:
        errors.print(note)
    if k > corpus.n_items:
        errors.print(f"--k {k:,}: domain {served} has {corpus.n_items:,} items, so no list has more")
    student = load_student(run, corpora, chosen_device(place.device))
    if not audience.known:
        _refuse_users(run, student, "give a file with user_id only")
    scorer = student.scorer(replace(by_name(corpora)[served], corpus=audience.corpus))
    title = f"recommendations of {run.inputs['student']}, {served}"
    with bar(title, len(audience.users), "users", errors) as moved:
        lists = best_lists(scorer, audience, k, mask_seen, titles, moved.advance)
        _write(_Lists(list_schema(audience.corpus, titles), lists), out)


def recommend_positions(place: Place, name: str, domain: str | None, k: int, out: Path, force: bool) -> None:
    """Write the best items at every position of a domain to a Parquet file: what a teacher of kind scores reads.

    The arguments are those of :func:`recommend`.

    Raises:
        UserError: there is no such run, its student scores no histories, or the file is wrong.
    """
    _refuse(out, force, FORMATS[:1])
    run, served, corpora = _found(place, name, domain)
    corpus = corpora[served]
    student = load_student(run, corpora, chosen_device(place.device))
    _refuse_users(run, student, "it cannot teach at other positions")
    scorer = student.scorer(by_name(corpora)[served])
    title = f"lists of {run.inputs['student']}, {served}"
    with bar(title, corpus.n_positions, "positions", errors) as moved:
        lists = position_lists(scorer, corpus, k, moved.advance)
        _write(_Lists(position_schema(corpus), lists), out)


def _found(place: Place, name: str, domain: str | None) -> tuple[Artifact, str, dict[str, Corpus]]:
    """Return the run that is meant, which of its domains, and the corpora it was trained on."""
    chosen = choose_run(place, name)
    served = chosen.domain_or(domain)
    if chosen.note:
        errors.print(chosen.note)
    return chosen.run, served, corpora_in(place.store, chosen.run)


def _refuse_users(run: Artifact, student: Any, instead: str) -> None:
    if not isinstance(student, ScoresHistories):
        raise UserError(f"{subject_of(run)} scores the users it was trained with, not histories; {instead}")


def _audience(users: Path, corpus: Corpus, domain: str, skip_unknown: bool) -> Audience:
    audience = read_audience(users, corpus, domain, skip_unknown)
    if not len(audience.users):
        why = "; ".join(audience.notes) or f"{users} holds no user"
        raise UserError(f"--users {users}: nobody is left to recommend to: {why}")
    return audience


def _refuse(out: Path, force: bool, formats: Sequence[str]) -> None:
    if out.suffix.lower() not in formats:
        raise UserError(f"--out {out}: the name must end in {' or '.join(formats)}")
    with usable(out):
        if out.exists() and not (force and out.is_file()):
            raise UserError(f"{out} is there already; name another file with --out, or replace it with --force")
        try_out(out)


class _Lists:
    """Batches with their schema, as an answer in SQL has them."""

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        self.schema, self._batches = schema, batches

    def batches(self) -> Iterator[pa.RecordBatch]:
        return self._batches


def _write(lists: _Lists, out: Path | None) -> None:
    if out is None:
        if isinstance(sys.stdout, TextIOWrapper):
            # A title that the terminal's encoding lacks is shown escaped; it must not end the output half-way.
            sys.stdout.reconfigure(errors="backslashreplace")
        write_csv(lists, sys.stdout)
        return
    if out.suffix.lower() == ".parquet":
        write_out(out, lambda path: write_batches(lists.batches(), lists.schema, path))
    else:
        write_out(out, lambda path: _write_csv(lists, path))


def _write_csv(lists: _Lists, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        write_csv(lists, stream)
