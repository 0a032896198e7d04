"""What pydantic found wrong, in the words of the configuration file."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ckd.pipeline.config.models import CONTRADICTION, Configuration
from ckd.pipeline.config.problems import Key, Problem, hint, nearest
from ckd.pipeline.config.schema import keys_at, kinds_of, meaning, model_of, values_of

_LONGEST_SHOWN = 60
_BY_KIND = ("teachers", "students")

_MAPPING = ("dict_type", "model_type", "model_attributes_type")
_WANTED = {
    **dict.fromkeys(_MAPPING, "a mapping (key: value)"),
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "tuple_type": "a list [a, b]",
    "list_type": "a list [a, b]",
}


def problems_in(error: ValidationError, data: Mapping[str, Any]) -> list[Problem]:
    """Return every problem that a validation of ``data`` as a configuration found."""
    return [_problem(details, data) for details in error.errors(include_url=False)]


def _problem(details: ErrorDetails, data: Mapping[str, Any]) -> Problem:
    if details["type"] == CONTRADICTION:
        return Problem(details["loc"], details["msg"])
    key, of_a_name = _key(details["loc"])
    if details["type"].startswith("union_tag"):
        return Problem((*key, "kind"), _bad_kind(details, key))
    if of_a_name and details["type"] == "literal_error":
        return Problem(key, _unknown_key(key, data))
    say = _SAYINGS.get(details["type"])
    if say is not None:
        return Problem(key, say(details, key, data))
    if details["type"] in _MAPPING and details["input"] is None:
        return Problem(key, "is empty; give it keys, or remove the line")
    if details["type"] in _WANTED:
        return Problem(key, f"must be {_WANTED[details['type']]}, not {shown(details['input'])}")
    return Problem(key, details["msg"].replace("Input should", "must"))


def _key(location: tuple[int | str, ...]) -> tuple[Key, bool]:
    """Return the user's key of pydantic's location, and whether the key itself is at fault."""
    of_a_name = location[-1:] == ("[key]",)
    key = location[:-1] if of_a_name else location
    if key[:1] and key[0] in _BY_KIND and len(key) > 2:
        key = (*key[:2], *key[3:])  # pydantic puts the kind that it chose after the name
    return key, of_a_name


def _unknown_key(key: Key, data: Mapping[str, Any]) -> str:
    return f"unknown key{hint(key[-1], keys_at(key[:-1], data))}"


def _missing(key: Key) -> str:
    what = _meaning(key)
    return f"missing ({what})" if what else "missing"


def _meaning(key: Key) -> str:
    if len(key) == 1:
        return meaning(Configuration, str(key[0]))
    model = model_of(values_of(Configuration.model_fields[str(key[0])].annotation))
    return meaning(model, str(key[-1])) if model is not None and key[-1] in model.model_fields else ""


def _bad_kind(details: ErrorDetails, key: Key) -> str:
    known = list(kinds_of(values_of(Configuration.model_fields[str(key[0])].annotation)))
    if details["type"] == "union_tag_not_found":
        return f"missing; known kinds: {', '.join(known)}"
    kind = details["ctx"]["tag"]
    clause = f"; did you mean {near[0]}?" if (near := nearest(kind, known)) else ";"
    return f"unknown kind {kind!r}{clause} known kinds: {', '.join(known)}"


def _bad_choice(details: ErrorDetails) -> str:
    # Pydantic gives the values as one text: "'linear', 'root' or 'none'".
    known = [word.strip(" '") for word in details["ctx"]["expected"].replace(" or ", ", ").split(",")]
    near = nearest(details["input"], known)
    ordered = [*near, *(word for word in known if word not in near)]
    clause = f"; did you mean {near[0]}?" if near else ""
    return f"must be one of {', '.join(ordered)}, not {shown(details['input'])}{clause}"


def _bound(words: str, name: str) -> Callable[[ErrorDetails, Key, Mapping[str, Any]], str]:
    def say(details: ErrorDetails, key: Key, data: Mapping[str, Any]) -> str:
        return f"must be {words.format(_number(details['ctx'][name]))}, not {shown(details['input'])}"

    return say


def _entries(details: ErrorDetails, key: Key, data: Mapping[str, Any]) -> str:
    least = details["ctx"]["min_length"]
    return f"needs at least {least} {'entry' if least == 1 else 'entries'}"


_SAYINGS: dict[str, Callable[[ErrorDetails, Key, Mapping[str, Any]], str]] = {
    "missing": lambda details, key, data: _missing(key),
    "extra_forbidden": lambda details, key, data: _unknown_key(key, data),
    "literal_error": lambda details, key, data: _bad_choice(details),
    "value_error": lambda details, key, data: str(details["ctx"]["error"]),
    "greater_than": _bound("above {}", "gt"),
    "greater_than_equal": _bound("{} or more", "ge"),
    "less_than": _bound("below {}", "lt"),
    "less_than_equal": _bound("{} or less", "le"),
    "too_short": _entries,
}


def shown(value: Any) -> str:
    """Return a value as a message shows it: text in quotes, cut if long."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping | list):
        return "a list" if isinstance(value, list) else "a mapping"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
