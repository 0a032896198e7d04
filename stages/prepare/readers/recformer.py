"""The files of Recformer's authors (their ``finetune_data/process.py``): JSON of numbered users and items."""

import json
from collections import Counter
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ckd.stages.prepare.tables import RawTables
from ckd.storage.errors import UserError

FIELDS = {"title": "title", "brand": "brand", "categories": "category"}
"""Our text fields to theirs."""
WHOLE = "are the files whole, and of one data set?"


def read(files: Mapping[str, Path]) -> RawTables:
    """Return the items of ``smap.json`` and every user's training, validation and test items at the times 0, 1, 2, ...

    Identifiers are the names in ``smap.json`` and ``umap.json``. A list in ``meta_data.json`` is joined by spaces, as
    the authors do it. Interactions of users without a validation or a test item are unusable: their last two items,
    which the authors trained on, would be held out.

    Args:
        files: the six files by their names.

    Raises:
        UserError: a file is torn or of another form, or the files contradict each other; the text names file and entry.
    """
    items, users = _numbers(files["smap.json"]), _numbers(files["umap.json"])
    train, valid, test = (_sequences(files[f"{split}.json"], users, items) for split in ("train", "val", "test"))
    for path, split in ((files["val.json"], valid), (files["test.json"], test)):
        for user, held_out in split.items():
            if len(held_out) > 1:
                raise UserError(f"{path}: user {user} has {len(held_out)} items where one is held out; {WHOLE}")
    sequences = {user: [*train.get(user, ()), *valid.get(user, ()), *test.get(user, ())] for user in users}
    lengths = np.array([len(sequence) for sequence in sequences.values()], dtype=np.int64)
    rows = np.repeat(np.arange(len(users)), lengths)
    names = list(users.values())
    lacking = np.array([not (valid.get(user) and test.get(user)) for user in users], dtype=bool)
    return RawTables(
        items=_items(files["meta_data.json"], list(items.values())),
        interactions=pa.table(
            {
                "user_id": _strings(files["umap.json"], names).take(pa.array(rows)),
                "item_id": _strings(
                    files["smap.json"], [items[item] for item in chain.from_iterable(sequences.values())]
                ),
                "timestamp": pa.array(list(chain.from_iterable(map(range, lengths))), pa.int64()),
            }
        ),
        items_path=files["meta_data.json"],
        interactions_path=files["train.json"],
        unusable={"no_held_out_item": lacking[rows]},
        call=lambda row: f"user {names[rows[row]]!r}",
    )


def _numbers(path: Path) -> dict[str, str]:
    """Return the names of a file by number, the number as it is a key in JSON."""
    names: dict[str, str] = {}
    for name, number in _object(path).items():
        if type(number) is not int or number < 0 or not name.strip():
            raise UserError(f"{path}: {name!r} has the number {_shown(number)}; a name and a whole number are needed")
        if str(number) in names:
            raise UserError(f"{path}: {names[str(number)]!r} and {name!r} have the number {number}; {WHOLE}")
        names[str(number)] = name
    return names


def _sequences(path: Path, users: Mapping[str, str], items: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the items' numbers by the user's number, both as keys in JSON."""
    sequences = {}
    for user, numbers in _object(path).items():
        if user not in users:
            raise UserError(f"{path}: user {user!r} is not in umap.json; {WHOLE}")
        if not isinstance(numbers, list):
            raise UserError(f"{path}: user {user} has {_shown(numbers)} where a list of items is expected; {WHOLE}")
        for number in numbers:
            if type(number) is not int or str(number) not in items:
                raise UserError(
                    f"{path}: user {user} has the item {_shown(number)}, which is not in smap.json; {WHOLE}"
                )
        sequences[user] = [str(number) for number in numbers]
    return sequences


def _items(path: Path, names: list[str]) -> pa.Table:
    metadata = _object(path)
    records = []
    for name in names:
        record = metadata.get(name)
        if not isinstance(record, dict):
            what = "no record" if record is None else f"{_shown(record)} for the record"
            raise UserError(f"{path} has {what} of item {name!r} of smap.json; {WHOLE}")
        records.append(record)
    texts = {
        ours: _strings(
            path, [_text(path, name, theirs, record.get(theirs)) for name, record in zip(names, records, strict=True)]
        )
        for ours, theirs in FIELDS.items()
    }
    return pa.table({"item_id": _strings(path, names), **texts})


def _text(path: Path, item: str, field: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return " ".join(value)
    raise UserError(
        f"{path}: {field!r} of item {item!r} is {_shown(value)}; a string or a list of strings is expected; correct it"
    )


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=lambda pairs: _distinct(path, pairs))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check that it is a file you may read") from error
    except (ValueError, RecursionError) as error:  # bad JSON and bad UTF-8
        raise UserError(f"{path} is not JSON in UTF-8 ({error}); is the file whole?") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {_shown(value)} where a JSON object is expected; {WHOLE}")
    return value


def _distinct(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, of which Python would silently keep the last of equal keys."""
    record = dict(pairs)
    if len(record) < len(pairs):
        times = Counter(name for name, _ in pairs)
        repeated = times.most_common(1)[0][0]
        raise UserError(f"{path} has the key {repeated!r} more than once in one object; keep one of them")
    return record


def _strings(path: Path, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values, pa.large_string())
    except UnicodeEncodeError as error:  # JSON can escape what no UTF-8 can hold
        raise UserError(f"{path}: {ascii(error.object)[:80]} holds half a character; correct the text") from error


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
