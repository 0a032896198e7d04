"""``--grid KEY=V1,V2,...``: the values that a sweep gives to one key of the configuration."""

import re
from collections.abc import Iterator, Sequence
from itertools import product

from ckd.pipeline.config.overrides import Override, OverrideError, parse_override

OPTION = "--grid"
_OPENING, _CLOSING = ("[", "{"), ("]", "}")
_BEFORE_QUOTES = (",", "[", "{", ":")
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)


class GridError(Exception):
    """A ``--grid`` that can't be read; each argument is one line for the user."""


def parse_grid(text: str) -> list[Override]:
    """Return the values of one ``--grid`` as overrides of its key.

    Commas separate values where they stand outside of brackets, braces and quotes; each value is then YAML, as for
    ``--set``: ``distill.loss={in_batch: 1},{in_batch: 1, top_k: 1}`` are two.

    Raises:
        GridError: it is not of that form, or values are not YAML.
    """
    key, equals, values = text.partition("=")
    if not equals or not key.strip():
        raise GridError(f"{OPTION} {text}: write KEY=V1,V2,..., for example {OPTION} distill.alpha=0.2,0.5")
    overrides, lines = [], []
    for value in split_values(values):
        if not value.strip():
            lines.append(f"{OPTION} {text}: a value is empty; write null for none, or take a comma away")
            continue
        try:
            overrides.append(parse_override(f"{key}={value.strip()}", OPTION))
        except OverrideError as error:
            lines.append(str(error))
    if lines:
        raise GridError(*lines)
    return overrides


def split_values(text: str) -> list[str]:
    """Return the parts of a text between the commas that stand outside of brackets, braces and quotes."""
    parts, start, place, depth, before = [], 0, 0, 0, ","
    while place < len(text):
        # A quote within a word, as in `it's`, is one of its characters.
        quoted = _QUOTED.match(text, place) if before in _BEFORE_QUOTES else None
        token = quoted[0] if quoted else text[place]
        depth += (token in _OPENING) - (token in _CLOSING)
        if token == "," and depth <= 0:
            parts.append(text[start:place])
            start = place + 1
        if not token.isspace():
            before = token[-1]
        place += len(token)
    return [*parts, text[start:]]


def grid_points(grids: Sequence[Sequence[Override]]) -> Iterator[tuple[Override, ...]]:
    """Yield every combination of the values of several grids; without any, the one of no value."""
    return product(*grids)


def clashes(grids: Sequence[Sequence[Override]]) -> list[str]:
    """Return a line for each grid that replaces what an earlier one sets: the same key, or a mapping around it."""
    lines = []
    keys = [grid[0].parts for grid in grids]
    for place, key in enumerate(keys):
        for earlier in keys[:place]:
            if earlier[: len(key)] == key:
                one, other = ".".join(key), ".".join(earlier)
                mend = "name all its values in one" if one == other else f"name it before that of {other}"
                lines.append(f"{OPTION} {one}: replaces what {OPTION} {other} sets; {mend}")
    return lines
