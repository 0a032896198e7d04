"""What is wrong with one key, and how it is said."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

Key = tuple[str | int, ...]
"""The way to a value: names of keys, and positions in lists."""


@dataclass(frozen=True)
class Problem:
    """One mistake: the key it is at and what is wrong, in words."""

    key: Key
    text: str


def dotted(key: Key) -> str:
    """Return a key as the user writes it: ``text.fields[1]``; a name that could be misread is quoted."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{_clear(part)}"
    return text.removeprefix(".")


def _clear(name: str) -> str:
    return name if re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII) else repr(name)


def nearest(word: object, known: Iterable[str]) -> list[str]:
    """Return the known words that look like ``word``, nearest first."""
    by_lower = {name.lower(): name for name in known}
    # 0.7 and not difflib's 0.6, which takes "gpu" for a misspelt "cpu".
    matches = difflib.get_close_matches(str(word).lower(), by_lower, cutoff=0.7)
    return [by_lower[name] for name in matches]


def hint(word: object, known: Iterable[str]) -> str:
    """Return a clause that ends a message: the nearest known word, or all of them."""
    known = list(known)
    if near := nearest(word, known):
        return f"; did you mean {near[0]}?"
    return f"; known: {', '.join(known)}" if known else ""


def unnamed(what: str, name: str, known: Iterable[str]) -> str:
    """Return what is said of a name that nothing of a sort (``domain``, ``student``) has."""
    return f"no {what} is named {name!r}{hint(name, known)}"
