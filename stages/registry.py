"""Where a kind's name becomes its module: one line for each of ours, an entry point for everybody else's."""

import importlib
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import get_args

from ckd.stages.settings import Settings
from ckd.storage.errors import UserError


class Registry:
    """Names to modules, imported when asked for.

    A third party adds a kind by an entry point in the group, its name the kind, its value the module.
    """

    def __init__(
        self,
        group: str,
        ours: Mapping[str, str],
        offers: tuple[str, ...] = (),
        settings: type[Settings] | None = None,
    ) -> None:
        """Make a registry.

        Args:
            group: of the entry points.
            ours: name to module.
            offers: the functions that each module has.
            settings: the base of each module's ``Settings``, where the kinds have settings.
        """
        self._group = group
        self._ours = dict(ours)
        self._offers = offers
        self._settings = settings

    def names(self) -> list[str]:
        """Return all names, ours first.

        Raises:
            UserError: another package takes a name that is taken already.
        """
        return [*self._ours, *self._theirs()]

    def load(self, name: str) -> ModuleType:
        """Import the module of one name.

        Raises:
            KeyError: nobody registered the name.
            UserError: the module of another package cannot be imported or does not offer what a kind needs.
        """
        if name in self._ours:
            return importlib.import_module(self._ours[name])
        point = self._theirs()[name]
        module = _imported(point, point.value)
        problem = self._problem(name, module)
        if problem is not None:
            raise _unfit(point, point.value, problem)
        return module

    def load_part(self, name: str, part: str, offers: Sequence[str]) -> ModuleType:
        """Import a module that stands beside the one of a name, ``<module>.<part>``.

        Args:
            name: of the kind.
            part: of the module.
            offers: the functions that it must have.

        Raises:
            KeyError: nobody registered the name.
            UserError: it is of another package and cannot be imported or lacks a function.
        """
        if name in self._ours:
            return importlib.import_module(f"{self._ours[name]}.{part}")
        point = self._theirs()[name]
        beside = f"{point.value}.{part}"
        module = _imported(point, beside)
        for function in offers:
            if not callable(getattr(module, function, None)):
                raise _unfit(point, beside, f"has no function {function}")
        return module

    def _theirs(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self._group):
            if point.name in self._ours:
                raise _unfit(point, point.value, "takes a name that ckd has itself")
            if found.setdefault(point.name, point).value != point.value:
                raise _unfit(point, point.value, f"takes a name that {found[point.name].value} has")
        return found

    def _problem(self, name: str, module: ModuleType) -> str | None:
        """Return what a module of another package lacks, or None."""
        for function in self._offers:
            if not callable(getattr(module, function, None)):
                return f"has no function {function}"
        return None if self._settings is None else _settings_problem(name, module, self._settings)


def _settings_problem(name: str, module: ModuleType, base: type[Settings]) -> str | None:
    found = getattr(module, "Settings", None)
    if found is None:
        return "has no class Settings"
    if not (isinstance(found, type) and issubclass(found, base)):
        return f"has a Settings that is no subclass of {base.__module__}.{base.__name__}"
    kind = found.model_fields.get("kind")
    if kind is None or name not in get_args(kind.annotation):
        return f"has a Settings without the field `kind: Literal[{name!r}] = {name!r}`"
    return None


def _imported(point: EntryPoint, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:  # foreign code may raise anything when it is imported
        reason = (str(error).splitlines() or [""])[0]
        raise _unfit(point, module, f"cannot be imported ({type(error).__name__}: {reason})") from error


def _unfit(point: EntryPoint, module: str, problem: str) -> UserError:
    package = f" of the package {point.dist.name}" if point.dist is not None else ""
    return UserError(
        f"the module {module}{package}, entry point {point.name!r} of {point.group}, {problem}; "
        "mend that package or uninstall it"
    )
