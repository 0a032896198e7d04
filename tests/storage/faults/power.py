"""A disk on which what was not flushed may be lost when the power fails.

It keeps beside the real disk a picture of it: of each file what was flushed and what was not, of each folder its
entries as they were flushed and after every change since. After a power cut a folder has the entries of any of these
moments, each folder independently of the others, and a file that was not flushed holds any torn form of what was
written.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from ckd.storage.disk import Disk, Fill


class PowerCut(BaseException):
    """The machine is off."""


@dataclass
class _File:
    live: bytes
    flushed: bytes | None = None

    def after_a_cut(self, random: Random) -> bytes:
        if self.live == self.flushed:
            return self.live
        length = random.randint(0, len(self.live))
        torn = [self.live, bytes(len(self.live)), self.live[:length]]
        torn.append(self.live[:length] + bytes(len(self.live) - length))
        return random.choice(torn if self.flushed is None else [*torn, self.flushed])


@dataclass
class _Folder:
    moments: list[dict[str, "_File | _Folder"]] = field(default_factory=lambda: [{}])
    """Entries as they were flushed, and after each change since."""

    @property
    def live(self) -> dict[str, "_File | _Folder"]:
        return self.moments[-1]

    def change(self, gone: tuple[str, ...] = (), new: Mapping[str, "_File | _Folder"] | None = None) -> None:
        left = {name: entry for name, entry in self.live.items() if name not in gone}
        self.moments.append(left | dict(new or {}))

    def empty(self) -> None:
        for name, entry in self.live.items():
            if isinstance(entry, _Folder):
                entry.empty()
            self.change(gone=(name,))


class PowerLoss(Disk):
    """The real disk, until the n-th call; then the power is off.

    Args:
        base: a folder that is there and flushed, with all in it; the picture is of it.
        n: the call, from 1.
        seed: of what is lost.
    """

    def __init__(self, base: Path, n: int, seed: int) -> None:
        self.base, self.n = base, n
        self.calls = 0
        self._random = Random(seed)
        self._picture = _as_flushed(base)

    @property
    def failed(self) -> bool:
        return self.calls >= self.n

    def cut(self) -> None:
        """Leave on the real disk what the cut has left."""
        shutil.rmtree(self.base)
        self._restore(self._picture, self.base)

    def write(self, path: Path, fill: Fill) -> None:
        def note() -> None:
            entry = self._folder(path.parent).live.get(path.name)
            if isinstance(entry, _File):
                entry.live = path.read_bytes()
            else:
                self._folder(path.parent).change(new={path.name: _File(path.read_bytes())})

        self._call(lambda: Disk.write(self, path, fill), note)

    def sync(self, path: Path) -> None:
        def note() -> None:
            if not path.is_relative_to(self.base):
                return
            entry = self._entry(path)
            if isinstance(entry, _File):
                entry.flushed = entry.live
            else:
                entry.moments = [entry.live]

        self._call(lambda: Disk.sync(self, path), note)

    def rename(self, source: Path, destination: Path) -> None:
        def note() -> None:
            assert source.parent == destination.parent, "a rename between folders is not atomic in this picture"
            folder = self._folder(source.parent)
            folder.change(gone=(source.name,), new={destination.name: folder.live[source.name]})

        self._call(lambda: Disk.rename(self, source, destination), note)

    def link(self, source: Path, destination: Path) -> None:
        def note() -> None:
            self._folder(destination.parent).change(new={destination.name: self._entry(source)})

        self._call(lambda: Disk.link(self, source, destination), note)

    def make_folder(self, path: Path) -> None:
        def note() -> None:
            folder = self._picture
            for name in path.relative_to(self.base).parts:
                if name not in folder.live:
                    folder.change(new={name: _Folder()})
                inner = folder.live[name]
                assert isinstance(inner, _Folder)
                folder = inner

        self._call(lambda: Disk.make_folder(self, path), note)

    def remove(self, path: Path) -> None:
        def note() -> None:
            if path.name in self._folder(path.parent).live:
                self._folder(path.parent).change(gone=(path.name,))

        self._call(lambda: Disk.remove(self, path), note)

    def remove_tree(self, path: Path) -> None:
        def note() -> None:
            self._folder(path).empty()
            self._folder(path.parent).change(gone=(path.name,))

        self._call(lambda: Disk.remove_tree(self, path), note)

    def _call(self, work: Callable[[], None], note: Callable[[], None]) -> None:
        if self.failed:
            raise PowerCut
        self.calls += 1
        if self.failed and self._random.random() < 0.5:
            raise PowerCut
        work()
        note()
        if self.failed:
            raise PowerCut

    def _entry(self, path: Path) -> _File | _Folder:
        entry: Any = self._picture
        for name in path.relative_to(self.base).parts:
            entry = entry.live[name]
        return entry

    def _folder(self, path: Path) -> _Folder:
        entry = self._entry(path)
        assert isinstance(entry, _Folder)
        return entry

    def _restore(self, folder: _Folder, path: Path) -> None:
        path.mkdir()
        for name, entry in self._random.choice(folder.moments).items():
            if isinstance(entry, _Folder):
                self._restore(entry, path / name)
            else:
                (path / name).write_bytes(entry.after_a_cut(self._random))


def _as_flushed(path: Path) -> _Folder:
    folder = _Folder()
    for found in path.iterdir():
        entry = _as_flushed(found) if found.is_dir() else _File(found.read_bytes(), found.read_bytes())
        folder.moments[0][found.name] = entry
    return folder
