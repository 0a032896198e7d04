"""What the settings models themselves find not to fit together, also where something else is wrong beside it."""

from collections.abc import Iterator, Mapping
from typing import Any

from ckd.pipeline.config.models import Configuration
from ckd.pipeline.config.problems import Key, Problem
from ckd.pipeline.config.schema import kinds_of, model_of, values_of
from ckd.stages.settings import Settings


def conflicts(data: Mapping[str, Any]) -> list[Problem]:
    """Return what every part of a configuration says of its own values; ``data`` is plain and may be unchecked.

    Pydantic asks a model for this only when each value is valid by itself; a user wants to hear all at once.
    """
    return list(_walk(Configuration, data, ()))


def _walk(annotation: Any, data: Any, key: Key) -> Iterator[Problem]:
    if not isinstance(data, Mapping):
        return
    model = _model(annotation, data)
    if model is not None:
        yield from (Problem(key, text) for text in model.conflicts({**_defaults(model), **data}))
        for name, field in model.model_fields.items():
            yield from _walk(field.annotation, data.get(name), (*key, name))
    elif (inner := values_of(annotation)) is not None:
        for name, value in data.items():
            yield from _walk(inner, value, (*key, name))


def _model(annotation: Any, data: Mapping[str, Any]) -> type[Settings] | None:
    kinds, kind = kinds_of(annotation), data.get("kind")
    return kinds.get(kind) if kinds and isinstance(kind, str) else model_of(annotation)


def _defaults(model: type[Settings]) -> dict[str, Any]:
    fields = model.model_fields.items()
    return {
        name: None if field.is_required() else field.get_default(call_default_factory=True) for name, field in fields
    }
