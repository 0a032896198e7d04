"""The table of `ckd du`: what takes the room in a store."""

from collections.abc import Sequence
from typing import NamedTuple

from ckd.pipeline.progress import console
from ckd.pipeline.report.layout import NOTHING, Row, number, print_numbers
from ckd.pipeline.report.teachers import pairs_of
from ckd.storage import files
from ckd.storage.artifact import MAKERS, Artifact
from ckd.storage.labels import part_names
from ckd.storage.location import Location
from ckd.storage.store import Store


class _Room(NamedTuple):
    """A row of the table."""

    kind: str
    teacher: str
    domain: str
    artifacts: int
    files: int
    bytes: int
    rows: int | None = None
    row: float | None = None
    pair: float | None = None


def room_table(store: Store) -> None:
    """Print a row for each kind, of labels one for each teacher and domain, and for what is not finished or damaged."""
    rooms = [room for kind in MAKERS for room in _of_kind(store, kind)] + _unfinished(store)
    total = sum(room.bytes for room in rooms)
    numbers = ["artifacts", "files", "MB", "share", "rows", "B/row", "B/pair"]
    whole = _Room("total", "", "", sum(room.artifacts for room in rooms), sum(room.files for room in rooms), total)
    rows: list[Row] = [_cells(room, total) for room in rooms]
    print_numbers(console, ["kind", "teacher", "domain"], numbers, [*rows, None, _cells(whole, total)])


def _of_kind(store: Store, kind: str) -> list[_Room]:
    found = store.all(kind)
    if kind != "labels":
        return [_Room(kind, "", "", len(found), *_sizes(found))] if found else []
    groups: dict[tuple[str, str], list[Artifact]] = {}
    for artifact in found:
        domain = artifact.path.parent
        names = domain.parent.name.partition("=")[2], domain.name.partition("=")[2]
        groups.setdefault(names, []).append(artifact)
    return [_labels(*names, artifacts) for names, artifacts in groups.items()]


def _labels(teacher: str, domain: str, artifacts: Sequence[Artifact]) -> _Room:
    parts = [artifact.files[name] for artifact in artifacts for name in part_names(artifact)]
    rows, size = sum(part.rows for part in parts), sum(part.bytes for part in parts)
    stored = [pairs_of(artifact) for artifact in artifacts]
    pairs = sum(count for _, count in stored)
    per_pair = sum(taken for taken, _ in stored) / pairs if pairs else None
    taken = _sizes(artifacts)
    return _Room("labels", teacher, domain, len(artifacts), *taken, rows, size / rows if rows else None, per_pair)


def _sizes(artifacts: Sequence[Artifact]) -> tuple[int, int]:
    receipts = [receipt for artifact in artifacts for receipt in artifact.files.values()]
    return len(receipts), sum(receipt.bytes for receipt in receipts)


def _unfinished(store: Store) -> list[_Room]:
    partials = [path for path, _ in store.partials()]
    damaged = [path for kind in MAKERS for path in store.damaged(kind)]
    return [
        _Room(name, "", "", len(folders), sum(len(files.sizes(folder)) for folder in folders), _below(folders))
        for name, folders in (("not finished", partials), ("damaged", damaged))
        if folders
    ]


def _below(folders: Sequence[Location]) -> int:
    return sum(map(files.bytes_below, folders))


def _cells(room: _Room, total: int) -> list[str]:
    return [
        room.kind,
        room.teacher,
        room.domain,
        f"{room.artifacts:,}",
        f"{room.files:,}",
        f"{room.bytes / 1e6:,.1f}",
        number(room.bytes / total if total else None, ".1%"),
        NOTHING if room.rows is None else f"{room.rows:,}",
        number(room.row, ",.1f"),
        number(room.pair, ".2f"),
    ]
