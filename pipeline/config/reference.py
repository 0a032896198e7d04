"""The configuration, documented: as commented YAML, and as a flat list of all keys."""

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ckd.pipeline.config.models import Configuration
from ckd.pipeline.config.schema import kinds_of, meaning, model_of, type_name, values_of
from ckd.stages.settings import Settings

_REQUIRED = "required"
_WIDTH = 100
_BREAKS = {"\x85", "\u2028", "\u2029"}
"""What Unicode, and with it YAML, takes for the end of a line."""


def as_yaml(configuration: Configuration) -> str:
    """Return a configuration as YAML, each key with meaning and default; it loads back to an equal one."""
    return "\n".join(_section(configuration, 0)) + "\n"


def key_table() -> str:
    """Return one line per key: key, type, default, meaning, in aligned columns."""
    rows = [("key", "type", "default", "meaning"), *_rows(Configuration, "", "")]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(_aligned(row, widths) for row in rows)


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
    return "  ".join([*cells, row[-1]])


def _section(settings: Settings, depth: int) -> Iterator[str]:
    for position, name in enumerate(type(settings).model_fields):
        if depth == 0 and position:
            yield ""
        yield from _comment(type(settings), name, depth)
        yield from _entry(name, getattr(settings, name), depth)


def _entry(name: str, value: Any, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if isinstance(value, Settings):
        yield f"{indent}{_flow(name)}:"
        yield from _section(value, depth + 1)
    elif isinstance(value, Mapping) and any(isinstance(inner, Settings) for inner in value.values()):
        yield f"{indent}{_flow(name)}:"
        for inner_name, inner in value.items():
            yield from _entry(inner_name, inner, depth + 1)
    else:
        yield f"{indent}{_flow(name)}: {_flow(value)}"


def _comment(model: type[Settings], name: str, depth: int) -> list[str]:
    lead = "  " * depth + "# "
    lines = textwrap.wrap(
        meaning(model, name), _WIDTH, initial_indent=lead, subsequent_indent=lead, break_long_words=False
    )
    default = _default(model, name)
    if not default:
        return lines
    note = f"({default if default == _REQUIRED else f'default: {default}'})"
    if lines and len(f"{lines[-1]} {note}") <= _WIDTH:
        return [*lines[:-1], f"{lines[-1]} {note}"]
    return [*lines, lead + note]


def _default(model: type[Settings], name: str) -> str:
    """Return a field's default as YAML; nothing for a section, whose keys have their own."""
    field = model.model_fields[name]
    if field.is_required() or name == "kind":  # a kind has a default in its own class only
        return _REQUIRED
    default = field.get_default(call_default_factory=True)
    return "" if isinstance(default, Settings) else _flow(default)


def _rows(model: type[Settings], prefix: str, note: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        yield f"{key}{note}", type_name(field), _default(model, name), meaning(model, name)
        inner = model_of(field.annotation)
        if inner is not None:
            yield from _rows(inner, f"{key}.", note)
        values = values_of(field.annotation)
        named = model_of(values)
        if named is not None:
            yield from _rows(named, f"{key}.<name>.", note)
        for kind, choice in kinds_of(values).items():
            yield from _rows(choice, f"{key}.<name>.", f" ({kind})")


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    text = _dumped(value, allow_unicode=True)
    if _BREAKS & set(text):  # PyYAML pads an unescaped one with blanks that it then reads as part of the value
        text = _dumped(value, allow_unicode=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _dumped(value: Any, allow_unicode: bool) -> str:
    return str(
        yaml.safe_dump(
            _plain(value), default_flow_style=True, width=float("inf"), allow_unicode=allow_unicode, sort_keys=False
        )
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return value
