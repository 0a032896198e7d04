"""What runs were trained with, named as in the configuration, and in which of it some runs differ."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Settings = Mapping[str, Any]
"""Dotted name to value; a value is plain, a list, or a mapping of names to numbers."""

_GROUPS = {"training": "distill", "teaching": "distill", "mask_history": "evaluate.mask_history"}
_NAMES = ("student", "domain", "domains", "distilled", "seed")
"""Inputs that say which run it is, not what it was trained with."""
_KEY = re.compile(r"[0-9a-f]{64}")
_SHOWN_OF_A_KEY = 8


def settings_of(inputs: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """Return what determined a run beside its names and its seed, flat.

    Args:
        inputs: of the run's key.
        known: key of a corpus or of labels to what determined it, which then stands for the key.
    """
    student = inputs.get("student")
    groups = {**_GROUPS, "settings": f"students.{student}"}
    flat: dict[str, Any] = {}
    for name, value in inputs.items():
        if name not in _NAMES and value is not None:
            flat |= _flat(groups.get(name, name), value, known or {}, 0)
    return flat


def in_domain(inputs: Mapping[str, Any], domain: str) -> dict[str, Any]:
    """Return what determined a run as far as one of its domains goes: ``corpus`` and ``labels`` of that one.

    What it learned from the other domains of a joint student stays, by their names.
    """
    if "domains" not in inputs:  # format 1
        return dict(inputs)
    corpora, labels = dict(inputs["corpora"]), dict(inputs["labels"])
    own = {**inputs, "corpus": corpora.pop(domain), "labels": labels.pop(domain)}
    return {**own, "corpora": corpora, "labels beside": labels}


def _flat(name: str, value: Any, known: Mapping[str, Mapping[str, Any]], depth: int) -> dict[str, Any]:
    if isinstance(value, str) and value in known:
        return {name: value} | _flat(name, known[value], {}, depth)
    # Below the first level a mapping of numbers is one value, such as the losses with their weights.
    weights = (
        depth > 0 and isinstance(value, Mapping) and all(isinstance(inner, int | float) for inner in value.values())
    )
    if not isinstance(value, Mapping) or weights:
        return {name: value}
    flat: dict[str, Any] = {}
    for inner, found in value.items():
        flat |= _flat(f"{name}.{inner}", found, known, depth + 1)
    return flat


def differing(runs: Sequence[tuple[str, Settings]]) -> list[str]:
    """Return the names of the settings that differ among runs, in order of appearance.

    A run that lacks a setting, such as one without distillation, differs in it from nobody. Corpora and labels are
    compared within a domain only, for between domains they always differ.

    Args:
        runs: domain and settings of each.
    """
    names = dict.fromkeys(name for _, settings in runs for name in settings)
    found = [name for name in names if _differs(name, runs)]
    telling = [name for name in found if not _is_key(name, runs)]
    # The key of labels tells nothing more where what they were made with is known and differs.
    return telling if _told_apart(runs, telling) >= _told_apart(runs, found) else found


def _differs(name: str, runs: Sequence[tuple[str, Settings]]) -> bool:
    by_domain: dict[str, set[str]] = {}
    for domain, settings in runs:
        if name in settings:
            within = domain if name.partition(".")[0] in ("corpus", "labels") else ""
            by_domain.setdefault(within, set()).add(shown(settings[name]))
    return any(len(values) > 1 for values in by_domain.values())


def _is_key(name: str, runs: Sequence[tuple[str, Settings]]) -> bool:
    return any(isinstance(settings.get(name), str) and _KEY.fullmatch(settings[name]) for _, settings in runs)


def _told_apart(runs: Sequence[tuple[str, Settings]], names: Sequence[str]) -> int:
    return len({(domain, *(shown(settings.get(name)) for name in names)) for domain, settings in runs})


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return the shortest ending of each dotted name that no other one has."""
    return {name: _shortest(name, [other for other in names if other != name]) for name in names}


def _shortest(name: str, others: Sequence[str]) -> str:
    parts = name.split(".")
    endings = (".".join(parts[-length:]) for length in range(1, len(parts) + 1))
    return next((end for end in endings if not any(f".{other}".endswith(f".{end}") for other in others)), name)


def shown(value: Any) -> str:
    """Return a value on one line, without brackets."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(inner)}" for name, inner in sorted(value.items()))
    if isinstance(value, list | tuple):
        return _listed(value)
    text = str(value)
    return text[:_SHOWN_OF_A_KEY] if _KEY.fullmatch(text) else text


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(shown, values))
