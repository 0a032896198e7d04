"""Files with one record a line and tabs between fields, as RecBole and UniSRec write them. Imports nothing heavy."""

import re
from collections.abc import Iterator
from pathlib import Path

from ckd.storage.errors import UserError

INDEX = re.compile(r"0|[1-9][0-9]{0,17}")
"""An index as the authors write it: no sign, no leading zeros, so that equal numbers are equal strings."""


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number, from 1, and the text of each line, which ends at a line feed and at no other break.

    Raises:
        UserError: the file can't be read, is not UTF-8, or ends within a line, as a torn file does.
    """
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n"):
                    raise UserError(
                        f"{path}, line {number}: the file ends without a line break; copy it again, or add the "
                        "break if the line is whole"
                    )
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line {number}: not UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check that it is a file you may read") from error


def read_index(path: Path) -> dict[str, str]:
    """Return the names of an ``item2index`` or ``user2index`` file (``name TAB index``) by index, in the file's order.

    Raises:
        UserError: a line has another form, or repeats a name or an index; the text names file and line.
    """
    names: dict[str, str] = {}
    seen: set[str] = set()
    for number, line in lines(path):
        name, *rest = line.split("\t")
        if len(rest) != 1 or not name.strip() or not INDEX.fullmatch(rest[0]):
            raise UserError(f"{path}, line {number}: {line[:80]!r} is no name, tab and index; correct the line")
        for repeated in ([f"index {rest[0]}"] if rest[0] in names else []) + ([repr(name)] if name in seen else []):
            raise UserError(f"{path}, line {number}: {repeated} was given before; keep one of the lines")
        names[rest[0]] = name
        seen.add(name)
    if not names:
        raise UserError(f"{path} is empty; it must hold a line 'name TAB index' for each index in use")
    return names
