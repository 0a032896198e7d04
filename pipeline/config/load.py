"""From a file and the command line's overrides to a checked configuration, or to the list of all mistakes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ckd.pipeline.config.conflicts import conflicts
from ckd.pipeline.config.contradictions import contradictions
from ckd.pipeline.config.document import Document, read_document
from ckd.pipeline.config.errors import problems_in, shown
from ckd.pipeline.config.models import Configuration
from ckd.pipeline.config.overrides import Override, OverrideError, apply_override, parse_override
from ckd.pipeline.config.paths import anchored
from ckd.pipeline.config.problems import Key, Problem, dotted
from ckd.storage.errors import UserError


def load_configuration(path: Path, overrides: Sequence[str | Override] = ()) -> Configuration:
    """Return the configuration in a YAML file, with overrides, parsed or ``KEY=VALUE``, applied in order.

    Relative paths count from the file's folder, those in overrides too.

    Raises:
        UserError: the file can't be read, or something in it or an override is wrong; one line per problem.
    """
    source = _Source(path, read_document(path))
    for override in overrides:
        source.override(override)
    try:
        configuration = Configuration.model_validate(source.data)
    except ValidationError as error:
        source.report(problems_in(error, source.data))
        source.report(contradictions(source.data))
        source.report(conflicts(source.data))
    if source.lines:
        raise UserError("\n".join(source.lines))
    return anchored(configuration, path.absolute().parent)


class _Source:
    """The data that is validated, and where each key of it was written."""

    def __init__(self, path: Path, document: Document) -> None:
        if not isinstance(document.data, dict):
            what = "is empty" if document.data is None else f"holds {_named(document.data)}"
            raise UserError(f"{path}: {what}, not keys and values; it needs at least the key domains")
        self.data: dict[str, Any] = document.data
        self._path = path
        self._document = document
        self._overrides: list[tuple[Key, Override]] = []
        self._lines: list[tuple[int, int, str]] = []
        for line, problem in document.repeated:
            self._lines.append((0, line, f"{path}:{line}: {dotted(problem.key)}: {problem.text}"))

    @property
    def lines(self) -> list[str]:
        """The problems so far, each once, in the order of the file and then of the overrides."""
        return list(dict.fromkeys(text for _, _, text in sorted(self._lines, key=lambda found: found[:2])))

    def override(self, given: str | Override) -> None:
        """Apply one ``KEY=VALUE``, parsed or not."""
        try:
            override = parse_override(given) if isinstance(given, str) else given
            self.data, key = apply_override(self.data, override)
        except OverrideError as error:
            self._lines.append((1, len(self._overrides), str(error)))
        else:
            self._overrides.append((key, override))

    def report(self, problems: Sequence[Problem]) -> None:
        """Note problems, each with the place that it comes from."""
        for problem in problems:
            key = problem.key
            index = self._override_of(key)
            if index is not None:
                overridden, override = self._overrides[index]
                detail = problem.text if overridden == key else f"{dotted(key)}: {problem.text}"
                self._lines.append((1, index, f"{override.shown}: {detail}"))
                continue
            line = self._line(key)
            place = f"{self._path}:{line}" if line else str(self._path)
            self._lines.append((0, line, f"{place}: {dotted(key)}: {problem.text}"))

    def _override_of(self, key: Key) -> int | None:
        """Return which override gave the value of a key, or made the mapping that lacks it."""
        for index, (overridden, _) in reversed(list(enumerate(self._overrides))):
            if key[: len(overridden)] == overridden:
                return index
        if self._document.line(key) is not None or self._document.line(key[:-1]) is not None:
            return None
        for index, (overridden, _) in enumerate(self._overrides):
            if overridden[: len(key) - 1] == key[:-1]:
                return index
        return None

    def _line(self, key: Key) -> int:
        """Return the line of a key, of its nearest ancestor that the file has, or 0."""
        for length in range(len(key), 0, -1):
            line = self._document.line(key[:length])
            if line is not None:
                return line
        return 0


def _named(value: Any) -> str:
    return shown(value) if isinstance(value, dict | list) else f"only {shown(value)}"
