"""Which raw files a domain has. Imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path

from ckd.stages.prepare.readers import READERS
from ckd.storage.errors import UserError

STEMS = ("items", "interactions")


@dataclass(frozen=True)
class RawFile:
    """One raw file and the name of its reader, which is its extension."""

    path: Path
    format: str


@dataclass(frozen=True)
class RawFiles:
    """The two raw files of a domain."""

    items: RawFile
    interactions: RawFile


def find_raw_files(folder: Path) -> RawFiles:
    """Return the one ``items.*`` and the one ``interactions.*`` of a folder.

    Raises:
        UserError: the folder is missing, or holds none or several files of a known format under a name.
    """
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(
            f"the data folder {folder} {state}; set the domain's path to the folder that holds items.* and "
            "interactions.*"
        )
    return RawFiles(*(_only_file(folder, stem) for stem in STEMS))


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
    there = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    raise UserError(f"{folder} has no {stem} file, only {_listed(there) or 'nothing'}; {expected}")


def _extension(path: Path) -> str:
    return path.name.partition(".")[2].lower()


def _listed(paths: list[Path], most: int = 10) -> str:
    names = [path.name for path in paths[:most]]
    return ", ".join([*names, f"and {len(paths) - most} more"] if len(paths) > most else names)
