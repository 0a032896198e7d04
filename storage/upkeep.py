"""Whether all in a store still is what was written: every manifest, every spare copy, every byte of every file."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ckd.storage import files
from ckd.storage.artifact import MAKERS, Artifact, Receipt, described
from ckd.storage.draft import receipts_in
from ckd.storage.keys import SHORT
from ckd.storage.location import Location
from ckd.storage.manifest import MANIFEST, SPARE
from ckd.storage.store import Store

OTHER_BYTES, MISSING = "other bytes than were written", "missing"
_WITH_SPARE = 2
"""Since this schema a manifest has a spare copy."""
_NAME = re.compile(rf"(key=)?[0-9a-f]{{{SHORT}}}")
_AT_ONCE = 2
"""Files that are read at once per core: one is hashed while another one comes from the disk."""

Advance = Callable[[int, int], None]
"""Called after each file with 1 and its bytes."""


@dataclass(frozen=True)
class Condition:
    """What is there of one artifact.

    Attributes:
        folder: its directory.
        kind: its kind, which is the folder of the store that it is in.
        record: the artifact as its manifest or, if that is damaged, the spare copy describes it; None if neither does.
        manifest: what is wrong with the manifest, or None.
        spare: what is wrong with the spare copy, or None.
        files: name to what is wrong of each damaged file.
    """

    folder: Location
    kind: str
    record: Artifact | None
    manifest: str | None
    spare: str | None
    files: Mapping[str, str]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.manifest or self.spare or self.files)

    def lines(self) -> Iterator[tuple[Location, str]]:
        """Yield each file that is not what was written, and what it is instead."""
        for name, what in ((MANIFEST, self.manifest), (SPARE, self.spare), *self.files.items()):
            if what:
                yield self.folder / name, what


@dataclass(frozen=True)
class Left:
    """What a writer left or is writing.

    Attributes:
        folder: its directory.
        writer: the living process that writes it, in words, or None.
        files: name to what is wrong of each file that is not what its receipt says; nothing of what is being written.
    """

    folder: Location
    writer: str | None
    files: Mapping[str, str]


def is_key(folder: Location) -> bool:
    """Return whether a directory is named as artifacts are; what others put into a store is not ours to judge."""
    return _NAME.fullmatch(folder.name) is not None


def condition_of(folder: Location, kind: str) -> Condition:
    """Return what is there of an artifact, by its manifest and the sizes of its files; none of them is read."""
    there = files.sizes(folder)
    whole, copy = (_of_here(described(folder, name), kind) for name in (MANIFEST, SPARE))
    spare = None if copy else "missing" if SPARE not in there else "damaged"
    if spare and whole and whole.manifest["schema"] < _WITH_SPARE:
        spare = None
    if whole and copy and whole.manifest != copy.manifest:
        spare = "not a copy of the manifest"
    manifest = None if whole else _words(MANIFEST in there, copy)
    record = whole or copy
    damaged = {} if record is None else _wrong_sizes(record.files, there)
    return Condition(folder, kind, record, manifest, spare, damaged)


def conditions(store: Store) -> list[Condition]:
    """Return what is there of each artifact of a store, of every kind; see :func:`condition_of`."""
    folders = [(folder, kind) for kind in MAKERS for folder in store.folders(kind)]
    return [condition_of(folder, kind) for folder, kind in folders if is_key(folder)]


def bytes_to_read(found: list[Condition]) -> tuple[int, int]:
    """Return how many files, and bytes of them, :func:`checked` will compare with their digests."""
    todo = _to_read(found)
    return len(todo), sum(receipt.bytes for _, _, receipt in todo)


def _to_read(found: list[Condition]) -> list[tuple[Location, str, Receipt]]:
    return [
        (condition.folder, name, receipt)
        for condition in found
        if condition.record is not None
        for name, receipt in condition.record.files.items()
        if name not in condition.files
    ]


def checked(found: list[Condition], advance: Advance = lambda _files, _bytes: None) -> list[Condition]:
    """Return the same with the digest of every file compared, several files at a time.

    An artifact that somebody removed or replaced meanwhile is left out.
    """
    todo = _to_read(found)
    damaged: dict[Location, dict[str, str]] = {}
    with _threads() as pool:
        looked = pool.map(lambda place: wrong(place[0] / place[1], place[2]), todo)
        for (folder, name, receipt), what in zip(todo, looked, strict=True):
            advance(1, receipt.bytes)
            if what is not None:
                damaged.setdefault(folder, {})[name] = what
    whole = []
    for condition in found:
        more = damaged.get(condition.folder)
        now = condition if condition.sound and not more else _again(condition)
        if now is not None:
            whole.append(Condition(**{**vars(now), "files": {**now.files, **(more or {})}}))
    return whole


def _again(condition: Condition) -> Condition | None:
    """Return what is there of an artifact now, or None if it is gone or another one was put there."""
    now = condition_of(condition.folder, condition.kind)
    if now.record is None and not files.sizes(condition.folder):
        return None
    before = None if condition.record is None else condition.record.manifest
    return now if before == (None if now.record is None else now.record.manifest) else None


def leftovers(store: Store) -> list[Left]:
    """Return what writers left or are writing; what was left is compared with its receipts."""
    found = store.partials()
    receipts = {folder: receipts_in(folder) for folder, writer in found if writer is None}
    todo = [(folder, name, receipt) for folder, named in receipts.items() for name, receipt in named.items()]

    def look(place: tuple[Location, str, Receipt | None]) -> str | None:
        folder, name, receipt = place
        return "its receipt is torn" if receipt is None else wrong(folder / name, receipt)

    damaged: dict[Location, dict[str, str]] = {}
    with _threads() as pool:
        for (folder, name, _), what in zip(todo, pool.map(look, todo), strict=True):
            if what is not None:
                damaged.setdefault(folder, {})[name] = what
    return [Left(folder, writer, damaged.get(folder, {})) for folder, writer in found]


def wrong(path: Location, receipt: Receipt) -> str | None:
    """Return what is wrong with a file, or None if it holds the bytes of its receipt."""
    try:
        size = path.stat().st_size
        if size != receipt.bytes:
            return _torn(size, receipt)
        return None if files.sha256_file(path) == receipt.sha256 else OTHER_BYTES
    except FileNotFoundError:
        return MISSING
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def _wrong_sizes(receipts: Mapping[str, Receipt], there: Mapping[str, int]) -> dict[str, str]:
    return {
        name: _torn(there[name], receipt) if name in there else MISSING
        for name, receipt in receipts.items()
        if there.get(name) != receipt.bytes
    }


def _torn(size: int, receipt: Receipt) -> str:
    return f"torn: size differs, {size:,} bytes instead of {receipt.bytes:,}"


def _of_here(artifact: Artifact | None, kind: str) -> Artifact | None:
    """Return the artifact if it is the one that its directory is named for."""
    if artifact is None or artifact.kind != kind:
        return None
    return artifact if artifact.path.name.removeprefix("key=") == artifact.key[:SHORT] else None


def _words(there: bool, copy: Artifact | None) -> str:
    what = "damaged manifest" if there else "missing manifest"
    return f"{what}; its spare copy is {'sound' if copy else 'no help'}"


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_AT_ONCE * (os.cpu_count() or 1))
