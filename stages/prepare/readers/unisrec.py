"""The files of UniSRec's authors (their ``process_amazon.py``): interactions as pairs of history and target.

``D.train.inter`` has a row for every history and target of a user's training part, the longest history first;
``D.valid.inter`` and ``D.test.inter`` have one row a user. Histories are oldest first and cut to their last items (the
authors' last 50), so that only all rows of a user together hold the whole sequence.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ckd.stages.atomic_files import INDEX, lines, read_index
from ckd.stages.prepare.tables import RawTables
from ckd.storage.errors import UserError

PAIRS_HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token"
TEXT_HEADER = "item_id:token\ttext:token_seq"
BLANK = " "
"""Between the items of a history."""
WHOLE = "are the files whole, and of one data set?"

Names = Mapping[str, str | int]
"""Index, as written, to identifier."""


class Pair(NamedTuple):
    """One history and its target: indices, as written."""

    path: Path
    line: int
    user: str
    history: str
    target: str

    @property
    def length(self) -> int:
        """Items of the history."""
        return self.history.count(BLANK) + 1 if self.history else 0

    @property
    def items(self) -> list[str]:
        """The history, oldest first."""
        return self.history.split(BLANK) if self.history else []


def read(files: Mapping[str, Path]) -> RawTables:
    """Return the items with their texts as ``title``, and every user's whole sequence at the times 0, 1, 2, ...

    Identifiers are the names in ``item2index`` and ``user2index``; where there is no such file, the indices, int64.

    Args:
        files: ``train.inter``, ``valid.inter``, ``test.inter``, ``text``, and those of the two indices that there are.

    Raises:
        UserError: a file is torn or of another form, or its rows contradict each other; the text names file and line.
    """
    items, texts = _catalogue(files)
    users: Names | None = read_index(files["user2index"]) if "user2index" in files else None
    train, valid, test = (_pairs(files[f"{split}.inter"], users, items) for split in ("train", "valid", "test"))
    sequences = whole_sequences(train, valid, test)
    lengths = np.array([len(sequence) for sequence in sequences.values()], dtype=np.int64)
    names = [users[user] if users else int(user) for user in sequences]
    return RawTables(
        items=pa.table({"item_id": _ids(list(items.values())), "title": pa.array(texts, pa.large_string())}),
        interactions=pa.table(
            {
                "user_id": _ids(names).take(pa.array(np.repeat(np.arange(len(names)), lengths))),
                "item_id": _ids([items[index] for index in chain.from_iterable(sequences.values())]),
                "timestamp": pa.array(list(chain.from_iterable(map(range, lengths))), pa.int64()),
            }
        ),
        items_path=files["text"],
        interactions_path=files["train.inter"],
    )


def whole_sequences(train: Sequence[Pair], valid: Sequence[Pair], test: Sequence[Pair]) -> dict[str, list[str]]:
    """Return each user's items, oldest first: the first one, then the targets of all rows, shortest history first.

    Every history must be what the shorter ones of the user make it, cut where the longest of all is. A user without
    training rows has at most one item before the two that are held out.

    Raises:
        UserError: a row contradicts the others, is missing or is there twice.
    """
    longest = max((pair.length for pair in chain(train, valid, test)), default=0)
    trained: dict[str, list[Pair]] = {}
    for pair in reversed(train):  # where histories are cut, only the order of the rows tells which is the shorter one
        trained.setdefault(pair.user, []).append(pair)
    validated, tested = _one_a_user(valid), _one_a_user(test)
    for pair in chain(train, valid, test):
        for held_out, split in ((validated, "validation"), (tested, "test")):
            if pair.user not in held_out:
                raise UserError(f"{pair.path}, line {pair.line}: user {pair.user} has no {split} row; {WHOLE}")
    return {
        user: _joined([*sorted(trained.get(user, ()), key=lambda pair: pair.length), pair, tested[user]], longest)
        for user, pair in validated.items()
    }


def _joined(pairs: Sequence[Pair], longest: int) -> list[str]:
    sequence = pairs[0].items[:1]
    for pair in pairs:
        expected = sequence[-longest:]
        if pair.history != BLANK.join(expected):
            raise UserError(
                f"{pair.path}, line {pair.line}: the history of user {pair.user} does not follow from the user's "
                f"shorter ones ({_difference(pair.items, expected)}); {WHOLE}"
            )
        sequence.append(pair.target)
    return sequence


def _difference(found: Sequence[str], expected: Sequence[str]) -> str:
    if len(found) != len(expected):
        return f"{len(found)} items where {len(expected)} are expected"
    place = next(place for place, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1])
    return f"item {found[place]} in place {place + 1} where {expected[place]} is expected"


def _one_a_user(pairs: Sequence[Pair]) -> dict[str, Pair]:
    by_user: dict[str, Pair] = {}
    for pair in pairs:
        first = by_user.setdefault(pair.user, pair)
        if first is not pair:
            raise UserError(
                f"{pair.path}, line {pair.line}: user {pair.user} has a row in line {first.line} too; keep one"
            )
    return by_user


def _pairs(path: Path, users: Names | None, items: Names) -> list[Pair]:
    pairs = []
    for number, fields in _records(path, PAIRS_HEADER):
        if len(fields) != 3:
            raise UserError(f"{path}, line {number}: {len(fields)} fields between tabs where 3 are expected; {WHOLE}")
        pair = Pair(path, number, *fields)
        if not (INDEX.fullmatch(pair.user) if users is None else pair.user in users):
            raise UserError(f"{path}, line {number}: {pair.user!r} is no index of a user; {WHOLE}")
        # The other items of a history are targets of other rows, or else contradict them.
        for item in (pair.target, *pair.items[:1]):
            if item not in items:
                raise UserError(f"{path}, line {number}: {item!r} is no index of an item; {WHOLE}")
        pairs.append(pair)
    return pairs


def _catalogue(files: Mapping[str, Path]) -> tuple[Names, list[str]]:
    """Return the items' identifiers by index, and their texts in the same order."""
    path = files["text"]
    texts: dict[str, str] = {}
    for number, fields in _records(path, TEXT_HEADER, splits=1):
        if len(fields) != 2 or not fields[0].strip():
            raise UserError(f"{path}, line {number}: no item, tab and text; {WHOLE}")
        if fields[0] in texts:
            raise UserError(f"{path}, line {number}: item {fields[0]!r} had a text before; keep one of the lines")
        texts[fields[0]] = fields[1]
    if "item2index" in files:
        names = read_index(files["item2index"])
        missing = next((name for name in names.values() if name not in texts), None)
        if missing is not None:
            raise UserError(f"{path} has no text of item {missing!r} of {files['item2index'].name}; {WHOLE}")
        return names, [texts[name] for name in names.values()]
    nameless = next((name for name in texts if not INDEX.fullmatch(name)), None)
    if nameless is not None:
        raise UserError(
            f"{path} names item {nameless!r}, but {path.with_suffix('.item2index').name}, which gives its index, is "
            "not there; copy it into the folder"
        )
    return {index: int(index) for index in texts}, list(texts.values())


def _records(path: Path, header: str, splits: int = -1) -> list[tuple[int, list[str]]]:
    """Return the lines after the header: number in the file, and the fields between the first ``splits`` tabs."""
    numbered = lines(path)
    _, first = next(numbered, (1, ""))
    if first != header:
        raise UserError(f"{path}: the first line must be {header!r}, not {first[:80]!r}; {WHOLE}")
    return [(number, line.split("\t", splits)) for number, line in numbered]


def _ids(values: Sequence[str | int]) -> pa.Array:
    return pa.array(values, pa.int64() if all(isinstance(value, int) for value in values) else pa.large_string())
