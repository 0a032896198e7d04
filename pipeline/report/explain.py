"""What `ckd distill --explain` prints: a table per user for people, and JSON for programs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ckd.pipeline.report.layout import LAYOUT, NOTHING, number
from ckd.pipeline.rows import printable
from ckd.stages.distill.explanation import Explanation, Item, Position, Said, User
from ckd.stages.distill.settings import DistillSettings
from ckd.storage.corpus import HELD_OUT

_SMALLEST = 0.00005
"""Below it four decimals would show zero."""


def write_json(student: str, explained: Mapping[str, Explanation], stream: TextIO) -> None:
    """Write an array with an object per domain; its keys are the attributes of the parts of an explanation."""
    domains = [{"domain": domain, "student": student, **asdict(found)} for domain, found in explained.items()]
    json.dump(domains, stream, ensure_ascii=False, allow_nan=False, indent=1)
    stream.write("\n")


def print_explanations(
    console: Console, student: str, explained: Mapping[str, Explanation], settings: DistillSettings
) -> None:
    """Print what each user's student is taught, and at the end what the letters mean.

    Titles are cut to the width of the console; numbers never are.
    """
    for domain, found in explained.items():
        console.print(Text(_domain_line(domain, student, found)))
        for user in found.users:
            console.print()
            for line in _user_lines(domain, user, found, settings):
                console.print(Text(line))
            if user.positions:
                console.print()
                console.print(_table(user, found, student))
        console.print()
    uneven = student if _unevenly(explained) else None
    console.print(Text(_legend(next(iter(explained.values())), settings, uneven)))


def _domain_line(domain: str, student: str, found: Explanation) -> str:
    parts = [f"{found.trained:,} training positions of {found.sequences:,} users"]
    if found.unlabelled:
        parts.append(f"{found.unlabelled:,} of them without a label (the truth alone)")
    if found.cut:
        parts.append(f"{found.cut:,} more that {student} never sees (max_length {found.max_length})")
    return f"{domain}: {', '.join(parts)}"


def _user_lines(domain: str, user: User, found: Explanation, settings: DistillSettings) -> Iterator[str]:
    example = f", {user.picked}" if user.picked else ""
    yield f"user {printable(str(user.user_id))} of {domain}{example}"
    yield f"  {_served(user, settings)}"
    if user.difficulty is not None:
        yield f"  difficulty {user.difficulty:.4f}, the rank of the weighted sum of"
    for name, term in user.terms.items():
        text = printable(" ".join(name.split()))
        yield f"    {text} {number(term.value, '.4g')}: rank {term.rank:.4f}, weight {term.weight:g}"
    yield f"  {user.items} items: {', '.join(_stretches(user, found))}"


def _served(user: User, settings: DistillSettings) -> str:
    if not user.trained:
        return "never served: nothing is left to train on"
    if user.first_epoch is None:
        return f"never served: distill.epochs is {settings.epochs}, and the curriculum comes to it later"
    if user.difficulty is None:
        return "served in every epoch: the curriculum is off (pacing none)"
    return f"served from epoch {user.first_epoch} on"


def _stretches(user: User, found: Explanation) -> Iterator[str]:
    """Yield what becomes of the positions of a sequence, in order."""
    if user.cut:
        yield f"{_stretch(1, user.cut)} never seen (max_length {found.max_length})"
    if user.trained:
        unlabelled = f" ({user.unlabelled} without a label)" if user.unlabelled else ""
        yield f"{_stretch(user.cut + 1, user.cut + user.trained)} trained{unlabelled}"
    yield f"{_stretch(user.items - HELD_OUT, user.items - 1)} held out"


def _stretch(first: int, last: int) -> str:
    return f"position {first}" if first == last else f"positions {first}-{last}"


def _table(user: User, found: Explanation, student: str) -> Table:
    table = Table(**LAYOUT)
    table.add_column("t", justify="right", no_wrap=True)
    table.add_column("says", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("item")
    for at in user.positions:
        table.add_row(str(at.position), "truth", "", _titled(at.target))
        for note in _notes(at, found, student):
            table.add_row("", "", "", Text(note))
        if at.state in ("taught", "unserved"):
            for teacher, said in at.teachers.items():
                _add_teacher(table, teacher, said, at)
        table.add_section()
    return table


def _notes(at: Position, found: Explanation, student: str) -> Iterator[str]:
    if at.state == "cut":
        yield f"never seen: {student} sees the last {found.max_length} items"
    if at.state == "truth":
        yield f"not taught: no teacher has a label here; the truth alone, weight={at.truth_weight:.4g}"
    elif at.counts not in (None, 1.0):
        yield f"n={_small(at.counts)}"


def _add_teacher(table: Table, teacher: str, said: Said | None, at: Position) -> None:
    if said is None:
        table.add_row("", teacher, "", Text("no label"))
        return
    table.add_row("", teacher, "", Text(_numbers(said, at)))
    for item in said.items:
        table.add_row("", "", _small(item.probability), _titled(item, item.item_id == at.target.item_id))


def _numbers(said: Said, at: Position) -> str:
    values = {"c": said.confidence, "s": said.consistency, "w": said.weight, "g": at.gate, "weight": said.loss_weight}
    shown = [f"{name}={NOTHING if value is None else _small(value)}" for name, value in values.items()]
    return f"{' '.join(shown)} rank={said.target_rank:,}"


def _small(value: float) -> str:
    return f"{value:.0e}" if 0 < value < _SMALLEST else f"{value:.4f}"


def _titled(item: Item, truth: bool = False) -> Text:
    # Text, so that brackets in a title are not taken for markup.
    title = printable(item.title) or f"item {printable(str(item.item_id))}"
    return Text(f"= {title}" if truth else title, no_wrap=True, overflow="ellipsis")


def _in_the_mean(settings: DistillSettings) -> str:
    return "" if settings.taught_share == 1 else f", in the mean over steps (taught_share {settings.taught_share:g})"


def _unevenly(explained: Mapping[str, Explanation]) -> bool:
    shown = (at for found in explained.values() for user in found.users for at in user.positions)
    return any(at.counts not in (None, 1.0) for at in shown)


def _legend(found: Explanation, settings: DistillSettings, uneven: str | None) -> str:
    weighting = settings.weighting
    every = "which serves all sequences" if found.share == 1 else f"the last, which serves {found.share:.1%} of them"
    counts = (
        f"; n: what {uneven} lets a position count in an epoch, in the mean over its draws, 1 where none is shown"
        if uneven
        else ""
    )
    n = " n" if uneven else ""
    return (
        "t: items in the history; p: probability over the catalogue; = the truth; "
        f"c: confidence ({weighting.confidence}); s: consistency ({weighting.consistency}); "
        "w: share among the teachers; g: gate, scaled to mean 1 over the labelled positions of epoch "
        f"{found.epoch}, {every}{counts}; weight: alpha g w{n}, of the teacher's losses, beside "
        f"{1 - settings.alpha:.4g}{n} of the truth (alpha {settings.alpha:g}){_in_the_mean(settings)}; "
        "rank: of the truth."
    )
