"""Relative paths of a configuration, counted from the folder of its file."""

from os.path import expanduser
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic.fields import FieldInfo

from ckd.pipeline.config.models import Configuration
from ckd.stages.settings import FolderOrUrl, NameOrFolder, RelativeToFile, Settings
from ckd.storage.location import FILE_URL, is_url

S = TypeVar("S", bound=Settings)


def anchored(configuration: Configuration, folder: Path) -> Configuration:
    """Return the configuration with every path absolute.

    Paths are the values of type Path, wherever they stand, text that is marked as one (``Located``, such as a teacher's
    ``checkpoint``, in which ``{domain}`` is filled in later), a store that is no URL, and what names a text encoder
    where it starts with ``.``, ``/`` or ``~`` or is a folder beside the file, since else it is the name of a published
    encoder.
    """
    return _anchored(configuration, folder)


def _anchored(settings: S, folder: Path) -> S:
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    changed = {name: _anchored_value(_located(settings, name, value, folder), folder) for name, value in values.items()}
    return settings.model_copy(update={name: value for name, value in changed.items() if value is not values[name]})


def _anchored_value(value: Any, folder: Path) -> Any:
    if isinstance(value, Path):
        return Path(_absolute(str(value), folder))
    if isinstance(value, Settings):
        return _anchored(value, folder)
    if isinstance(value, dict):
        return {name: _anchored_value(inner, folder) for name, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(_anchored_value(inner, folder) for inner in value)
    return value


def _located(settings: Settings, name: str, value: Any, folder: Path) -> Any:
    """Return the value of a text field, absolute if it is marked as a path or as an encoder that is one here."""
    if not isinstance(value, str):
        return value
    marks = _marks(type(settings).model_fields[name])
    local = value.startswith((".", "/", "~")) or (folder / value).is_dir()
    folder_of_store = FolderOrUrl in marks and not is_url(value)
    if RelativeToFile in marks or folder_of_store or (NameOrFolder in marks and local):
        return _absolute(value.removeprefix(FILE_URL) if folder_of_store else value, folder)
    return value


def _marks(field: FieldInfo) -> set[type]:
    """Return the types of a field's marks, also of those inside an optional annotation."""
    inner = (mark for option in get_args(field.annotation) for mark in getattr(option, "__metadata__", ()))
    return {type(mark) for mark in (*field.metadata, *inner)}


def _absolute(path: str, folder: Path) -> str:
    # Path.expanduser raises for the home of an unknown user; such a folder simply is not there.
    return str(folder / expanduser(path))  # noqa: PTH111
