"""Which raw files a domain has. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ckd.stages.prepare.readers import READERS
from ckd.stages.prepare.settings import Format
from ckd.storage.errors import UserError

ITEMS, INTERACTIONS = "items", "interactions"


@dataclass(frozen=True)
class Layout:
    """The files of a folder as a teacher's authors write it.

    Attributes:
        mark: pattern of the one file by which the layout is known; what its ``*`` stands for, the name of the data
            set, begins the names of the others too.
        needed: the files it has, without the name of the data set.
        optional: the files it may have.
    """

    mark: str
    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def named(self, names: tuple[str, ...]) -> str:
        """Return names of files for a message, with D for the data set."""
        return ", ".join(f"D.{name}" if "*" in self.mark else name for name in names)


LAYOUTS: Mapping[Format, Layout] = {
    "unisrec": Layout(
        mark="*.train.inter",
        needed=("train.inter", "valid.inter", "test.inter", "text"),
        optional=("item2index", "user2index"),
    ),
    "recformer": Layout(
        mark="smap.json",
        needed=("train.json", "val.json", "test.json", "smap.json", "umap.json", "meta_data.json"),
    ),
}


@dataclass(frozen=True)
class RawFile:
    """One raw file and what reads it: its extension, or the format of the folder."""

    path: Path
    format: str


@dataclass(frozen=True)
class RawFiles:
    """All files that determine the corpus of a domain.

    Attributes:
        format: what the folder holds.
        by_role: the files by what they are to the format: ``items`` and ``interactions`` of tables, else the names
            in :data:`LAYOUTS`.
    """

    format: Format
    by_role: Mapping[str, RawFile]


def find_raw_files(folder: Path, kind: Format) -> RawFiles:
    """Return the raw files of a folder: of tables, the one ``items.*`` and the one ``interactions.*``.

    Raises:
        UserError: the folder is missing, lacks a file, or holds several where one is expected.
    """
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        layout = LAYOUTS.get(kind)
        files = layout.named(layout.needed) if layout else "items.* and interactions.*"
        raise UserError(f"the data folder {folder} {state}; set the domain's path to the folder that holds {files}")
    if kind == "tables":
        return RawFiles(kind, {stem: _only_file(folder, stem) for stem in (ITEMS, INTERACTIONS)})
    return RawFiles(kind, {role: RawFile(path, kind) for role, path in _layout_files(folder, kind).items()})


def _layout_files(folder: Path, kind: Format) -> dict[str, Path]:
    layout = LAYOUTS[kind]
    expected = f"format: {kind} needs {layout.named(layout.needed)}"
    marks = sorted(folder.glob(layout.mark))
    if len(marks) > 1:
        raise UserError(f"{folder} holds {_listed(marks)}; {expected} of one data set: give each a folder of its own")
    if not marks:
        raise UserError(f"{folder} has no {layout.mark}, only {_present(folder)}; {expected}{_advice(folder, kind)}")
    prefix = marks[0].name.removesuffix(layout.mark.removeprefix("*.")) if "*" in layout.mark else ""
    _refuse_merged(folder / f"{prefix}pt_datasets")
    paths = {role: folder / f"{prefix}{role}" for role in (*layout.needed, *layout.optional)}
    for role in layout.needed:
        if not paths[role].is_file():
            raise UserError(f"{folder} has no {paths[role].name}, only {_present(folder)}; {expected}")
    return {role: path for role, path in paths.items() if path.is_file()}


def _refuse_merged(domains: Path) -> None:
    """Refuse UniSRec's pre-training sets: several catalogues in one, whose texts are elsewhere."""
    if domains.is_file():
        raise UserError(
            f"{domains} says that several domains were merged for pre-training; ckd takes each by itself: set the path "
            f"of each, under sources, to the folder with its own {LAYOUTS['unisrec'].named(('train.inter', 'text'))}"
        )


def _only_file(folder: Path, stem: str) -> RawFile:
    known = READERS.names()
    candidates = sorted(path for path in folder.iterdir() if path.name.split(".")[0] == stem)
    readable = [path for path in candidates if path.is_file() and _extension(path) in known]
    if len(readable) == 1:
        return RawFile(readable[0], _extension(readable[0]))
    expected = f"exactly one of {', '.join(f'{stem}.{name}' for name in known)} is expected"
    if readable:
        raise UserError(f"{folder} holds {_listed(readable)}; {expected}: remove or rename the others")
    if candidates:
        raise UserError(f"{folder} holds {_listed(candidates)}, a format that nothing here reads; {expected}")
    raise UserError(f"{folder} has no {stem} file, only {_present(folder)}; {expected}{_advice(folder, 'tables')}")


def _advice(folder: Path, kind: Format) -> str:
    """Return which other format the folder seems to have, to be added to a message."""
    marks = {name: layout.mark for name, layout in LAYOUTS.items()}
    for name, mark in {**marks, "tables": f"{INTERACTIONS}.*"}.items():
        if name != kind and any(folder.glob(mark)):
            return f"; for {mark}, set domains.<name>.format: {name}"
    return ""


def _extension(path: Path) -> str:
    return path.name.partition(".")[2].lower()


def _present(folder: Path) -> str:
    return _listed(sorted(path for path in folder.iterdir() if not path.name.startswith("."))) or "nothing"


def _listed(paths: list[Path], most: int = 10) -> str:
    names = [path.name for path in paths[:most]]
    return ", ".join([*names, f"and {len(paths) - most} more"] if len(paths) > most else names)
