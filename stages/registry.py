"""Where a kind's name becomes its module: one line for each of ours, an entry point for everybody else's."""

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from types import ModuleType


class Registry:
    """Names to modules, imported when asked for.

    A third party adds a kind by an entry point in the group, its name the kind, its value the module.
    """

    def __init__(self, group: str, ours: Mapping[str, str]) -> None:
        self._group = group
        self._ours = dict(ours)

    def names(self) -> list[str]:
        """Return all names, ours first."""
        theirs = [point.name for point in entry_points(group=self._group)]
        return [*self._ours, *(name for name in theirs if name not in self._ours)]

    def load(self, name: str) -> ModuleType:
        """Import the module of one name.

        Raises:
            KeyError: nobody registered the name.
        """
        if name in self._ours:
            return importlib.import_module(self._ours[name])
        for point in entry_points(group=self._group, name=name):
            module = point.load()
            if isinstance(module, ModuleType):
                return module
            raise TypeError(f"entry point {self._group}:{name} names {module!r}, not a module")
        raise KeyError(name)
