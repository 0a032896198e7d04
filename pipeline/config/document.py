"""YAML text as plain data that remembers on which line each key stands.

Keys are text as written, so that a domain may be called ``2020`` or ``on`` without quotes. Values follow
YAML 1.1 as PyYAML reads it, where ``1e-3`` without a dot is text; the configuration's models take it for the
number it is.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ckd.pipeline.config.problems import Key, Problem
from ckd.storage.errors import UserError

_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"


class UnreadableError(Exception):
    """The text is not YAML that stands for plain data; ``line`` counts from 1, 0 where it is not known."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class Document:
    """One parsed YAML text.

    Attributes:
        data: the plain data; None for an empty text.
        repeated: keys that stand twice in one mapping, with the line of each repetition.

    Raises:
        UnreadableError: on construction.
    """

    def __init__(self, text: str) -> None:
        try:
            loader = yaml.SafeLoader(text)
            try:
                self._root = loader.get_single_node()
                self.repeated: list[tuple[int, Problem]] = []
                if self._root is not None:
                    self.repeated.extend(_check_keys(self._root, (), set()))
                self.data: Any = None if self._root is None else loader.construct_document(self._root)
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            raise _explained(error) from None
        except yaml.YAMLError as error:
            raise UnreadableError(str(error).splitlines()[0]) from None
        except ValueError as error:  # e.g. the date 2020-13-01
            raise UnreadableError(str(error)) from None
        except RecursionError:
            raise UnreadableError("it is nested too deeply") from None

    def line(self, key: Key) -> int | None:
        """Return the line, counted from 1, at which a key stands, or None if it does not."""
        line, node = 1, self._root
        for part in key:
            found = _child(node, part)
            if found is None:
                return None
            line, node = found
        return line


def read_document(path: Path) -> Document:
    """Return the YAML document in a file.

    Raises:
        UserError: there is no such file, it is not UTF-8, or not YAML.
    """
    text = _read(path)
    try:
        return Document(text)
    except UnreadableError as error:
        where = f"{path}:{error.line}" if error.line else str(path)
        raise UserError(f"{where}: not valid YAML: {error}") from None


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; name the configuration with -c FILE") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name the configuration file in it with -c FILE") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise UserError(f"{path}:{line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from None


def _check_keys(node: yaml.Node, key: Key, seen: set[int]) -> Iterator[tuple[int, Problem]]:
    """Make every key text and yield the repeated ones.

    Must run before the data is made, which flattens merge keys. A node is visited once, however many aliases
    name it.
    """
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _check_keys(child, (*key, index), seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        node.value = [(_as_text(name), child) for name, child in node.value]
        for name, child in node.value:
            line = name.start_mark.line + 1
            own = (*key, name.value)
            if name.value in lines and name.tag != _MERGE:
                yield line, Problem(own, f"given twice, first on line {lines[name.value]}; keep one")
            lines.setdefault(name.value, line)
            yield from _check_keys(child, own, seen)


def _as_text(name: yaml.Node) -> yaml.ScalarNode:
    if not isinstance(name, yaml.ScalarNode):
        raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=name.start_mark)
    if name.tag == _MERGE:
        return name
    # A copy, since an alias may use the same node as a value.
    return yaml.ScalarNode(_TEXT, name.value, name.start_mark, name.end_mark, name.style)


def _child(node: yaml.Node | None, part: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        child = node.value[part]
        return child.start_mark.line + 1, child
    if isinstance(node, yaml.MappingNode):
        # The last one counts: merged keys come first, and are overridden by the mapping's own.
        for name, child in reversed(node.value):
            if name.value == part:
                return name.start_mark.line + 1, child
    return None


def _explained(error: yaml.MarkedYAMLError) -> UnreadableError:
    words = ", ".join(part for part in (error.context, error.problem) if part)
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return UnreadableError(words)
    return UnreadableError(f"{words} (column {mark.column + 1})", mark.line + 1)
