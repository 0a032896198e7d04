"""The configuration's models, walked: what may stand at a key, what it is called, what it means."""

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from ckd.pipeline.config.models import ByKind, Configuration
from ckd.stages.settings import Settings

_PLAIN = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    Path: "path",
    Any: "anything",
    type(None): "null",
}
_BOUNDS = {
    annotated_types.Ge: ("ge", ">= {}"),
    annotated_types.Gt: ("gt", "> {}"),
    annotated_types.Le: ("le", "<= {}"),
    annotated_types.Lt: ("lt", "< {}"),
}


def model_of(annotation: Any) -> type[Settings] | None:
    """Return the settings model that an annotation names, itself or optionally, or None."""
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, Settings):
            return option
    return None


def kinds_of(annotation: Any) -> dict[str, type[Settings]]:
    """Return the models by kind where an annotation is one of a registry's settings; none otherwise."""
    if get_origin(annotation) is Annotated:
        for mark in get_args(annotation)[1:]:
            if isinstance(mark, ByKind):
                return mark.models()
    return {}


def values_of(annotation: Any) -> Any | None:
    """Return the annotation of the values of a mapping, or None if it is none."""
    return get_args(annotation)[1] if get_origin(annotation) is dict else None


def keys_at(key: tuple[str | int, ...], data: Any) -> list[str]:
    """Return the names that may stand in the mapping at ``key``; none where any name may, or nothing.

    ``data`` is the configuration as plain data: of several kinds, the one it names counts.
    """
    annotation: Any = Configuration
    for part in key:
        data = data.get(part) if isinstance(data, Mapping) else None
        model = model_of(annotation)
        if model is not None and part in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
        else:
            annotation = values_of(annotation)
        kind = data.get("kind") if isinstance(data, Mapping) else None
        if isinstance(kind, str) and kind in (kinds := kinds_of(annotation)):
            annotation = kinds[kind]
    model = model_of(annotation)
    if model is not None:
        return list(model.model_fields)
    names = get_args(annotation)[0] if get_origin(annotation) is dict else None
    return [str(name) for name in get_args(names)] if get_origin(names) is Literal else []


def meaning(model: type[Settings], name: str) -> str:
    """Return the description of a field.

    A part of the configuration is described by its own class, a kind by the class that it selects.
    """
    field = model.model_fields[name]
    if field.description:
        return field.description
    described = model if name == "kind" else model_of(field.annotation)
    return "" if described is None else first_sentence(described)


def first_sentence(model: type[Settings]) -> str:
    """Return the first line of a model's own docstring, without its full stop."""
    return (model.__dict__.get("__doc__") or "").strip().partition("\n")[0].removesuffix(".")


def type_name(field: FieldInfo) -> str:
    """Return the type of a field in plain words, with its bounds."""
    bounds = [
        words.format(getattr(mark, attribute))
        for mark in field.metadata
        for bound, (attribute, words) in _BOUNDS.items()
        if isinstance(mark, bound)
    ]
    return " ".join([_name(field.annotation), *bounds])


def _name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if kinds_of(annotation) or model_of(annotation) is annotation:
        return "section"
    if origin is Annotated:
        return _name(arguments[0])
    if origin is Literal:
        return " | ".join(str(value) for value in arguments)
    if origin is tuple:
        return f"list of {_name(arguments[0])}"
    if origin is dict:
        names = _name(arguments[0])
        return f"{'name' if names == 'text' else names}: {_name(arguments[1])}"
    if origin in (Union, types.UnionType):
        return " | ".join(_name(option) for option in arguments)
    return _PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _options(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
