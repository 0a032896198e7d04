"""``--set a.b.c=value``: single keys of the configuration, overridden on the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckd.pipeline.config.document import Document, UnreadableError
from ckd.pipeline.config.problems import Key, dotted

_LONGEST_SHOWN = 60


class OverrideError(Exception):
    """A ``--set`` that can't be applied; its text is the whole line for the user."""


@dataclass(frozen=True)
class Override:
    """One ``--set``, or one value of another option: the text as typed, the key's parts, the value."""

    text: str
    parts: tuple[str, ...]
    value: Any
    option: str = "--set"

    @property
    def shown(self) -> str:
        """The option as the user typed it, cut if long."""
        return _shown(self.text, self.option)


def parse_override(text: str, option: str = "--set") -> Override:
    """Return the override in ``KEY=VALUE``, its value read as YAML; ``option`` is what the user gave it with.

    Raises:
        OverrideError: it is not of that form, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    parts = tuple(part.strip() for part in key.split("."))
    if not equals or not all(parts):
        raise OverrideError(f"{_shown(text, option)}: write KEY=VALUE, for example {option} distill.alpha=0.3")
    try:
        document = Document(value)
    except UnreadableError as error:
        raise OverrideError(f"{_shown(text, option)}: the value is not valid YAML: {error}") from None
    for _, problem in document.repeated:
        raise OverrideError(f"{_shown(text, option)}: {dotted(problem.key)}: given twice; keep one")
    return Override(text, parts, document.data, option)


def apply_override(data: Mapping[str, Any], override: Override) -> tuple[dict[str, Any], Key]:
    """Return the data with one key replaced, and that key; mappings on the way to it are made where missing.

    A name may hold dots, so at each step the longest run of parts that names an existing key is taken for it.

    Raises:
        OverrideError: a value on the way is not a mapping.
    """
    return _assign(data, override, (), override.parts)


def _assign(data: Mapping[str, Any], override: Override, done: Key, parts: Sequence[str]) -> tuple[dict[str, Any], Key]:
    taken = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in data), 1)
    name, rest = ".".join(parts[:taken]), parts[taken:]
    key = (*done, name)
    if not rest:
        return {**data, name: override.value}, key
    inner = data.get(name)
    if inner is None:
        inner = {}
    if not isinstance(inner, Mapping):
        raise OverrideError(f"{override.shown}: {dotted(key)} is not a mapping, so it has no key {rest[0]}")
    changed, whole = _assign(inner, override, key, rest)
    return {**data, name: changed}, whole


def _shown(text: str, option: str) -> str:
    shown = text.partition("\n")[0][:_LONGEST_SHOWN]
    return f"{option} {shown if shown == text else shown + '…'}"
