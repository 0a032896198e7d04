"""Which row of a checkpoint of the authors belongs to which item of a corpus.

Their files number items in an order of their own (first appearance in RecBole's data set) and do not keep the map. It
is found again by the text vectors, bit for bit, or given by the user. A wrong row would give wrong scores without a
sign of it, so whatever is not certain is refused.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ckd.stages.teachers.contract import TextVectors
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.stages.teachers.unisrec.recbole import RecBoleCheckpoint, read_recbole
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]


def open_pth(path: Path, item_ids: Path | None, corpus: Corpus, text: TextVectors) -> UniSRec:
    """Return the network of a checkpoint of the authors, made ready for one corpus.

    The rows of an ID table stand in order of item code. The text vectors inside the file serve to find them and for
    nothing else: scores come from those of the domain.

    Args:
        path: the ``.pth`` file.
        item_ids: JSON file with the item of each row, see :func:`rows_by_ids`; by default rows are found by text.
        corpus: the domain.
        text: its text vectors.

    Raises:
        UserError: the file cannot be read, does not fit the text vectors, or an item's row is missing or uncertain.
    """
    checkpoint = read_recbole(path)
    found = text.vectors.shape[1]
    if found != checkpoint.text_dimensions:
        raise UserError(
            f"{path}: this teacher reads text vectors of {checkpoint.text_dimensions} dimensions, "
            f"the domain's have {found}; set text.encoder to the one it was trained with"
        )
    if item_ids is not None:
        return checkpoint.model(rows_by_ids(checkpoint, item_ids, corpus, text.vectors))
    return checkpoint.model(None if checkpoint.ids is None else rows_by_text(checkpoint, corpus, text.vectors))


def rows_by_text(checkpoint: RecBoleCheckpoint, corpus: Corpus, vectors: Float32s) -> Int64s:
    """Return the row of each item, int64 [n_items] in order of code: the one with the item's text vector, bit for bit.

    Raises:
        UserError: an item has no such row or several, or two items have the same.
    """
    by_vector = _rows_of_vectors(checkpoint)
    ids = corpus.items["item_id"].to_pylist()
    mend = "name the item of each row with item_ids"
    found = [by_vector.get(vector.tobytes(), []) for vector in vectors]
    absent = [item for item, rows in zip(ids, found, strict=True) if not rows]
    if absent:
        raise UserError(
            f"{checkpoint.path}: no row has the text vector of item {absent[0]!r} "
            f"({len(absent)} of {len(ids)} items have none), so the rows of its ID table are not known; {mend}"
        )
    taken: dict[int, Any] = {}
    for item, rows in zip(ids, found, strict=True):
        if len(rows) > 1:
            raise UserError(
                f"{checkpoint.path}: rows {rows[0]} and {rows[1]} both have the text vector of item {item!r}; {mend}"
            )
        if rows[0] in taken:
            raise UserError(
                f"{checkpoint.path}: items {taken[rows[0]]!r} and {item!r} both have the text vector of row "
                f"{rows[0]}; {mend}"
            )
        taken[rows[0]] = item
    return np.array([rows[0] for rows in found], np.int64)


def rows_by_ids(checkpoint: RecBoleCheckpoint, item_ids: Path, corpus: Corpus, vectors: Float32s) -> Int64s:
    """Return the row of each item, int64 [n_items] in order of code, from the user's map.

    Args:
        checkpoint: the file.
        item_ids: JSON file: a list of item ids by row with null, the padding item, first; or an object from item id
            to row. Items that the corpus lacks may stand there.
        corpus: the domain.
        vectors: float32 [n_items, p], its text vectors: where the file holds an item's vector, it must be in its row.

    Raises:
        UserError: no such map, an item of the corpus is missing in it, or it contradicts the text vectors.
    """
    if checkpoint.text is None:
        raise UserError(
            f"{checkpoint.path} has no rows of items (train_stage {checkpoint.stage}); remove item_ids for it"
        )
    rows = _read_map(item_ids, len(checkpoint.text))
    by_vector = _rows_of_vectors(checkpoint)
    chosen = []
    for item, vector in zip(corpus.items["item_id"].to_pylist(), vectors, strict=True):
        row = rows.get(str(item))
        if row is None:
            raise UserError(f"{item_ids}: item {item!r} of the domain is missing; each item of it needs a row")
        known = by_vector.get(vector.tobytes(), [])
        if known and row not in known:
            raise UserError(
                f"{item_ids}: item {item!r} is row {row}, but {checkpoint.path} has its text vector in row "
                f"{known[0]}; give the map of this file"
            )
        chosen.append(row)
    return np.array(chosen, np.int64)


def _rows_of_vectors(checkpoint: RecBoleCheckpoint) -> dict[bytes, list[int]]:
    """Return the rows of each text vector in the file, without the padding item's."""
    assert checkpoint.text is not None
    found: dict[bytes, list[int]] = {}
    for row in range(1, len(checkpoint.text)):
        found.setdefault(checkpoint.text[row].tobytes(), []).append(row)
    return found


def _read_map(path: Path, n_rows: int) -> dict[str, int]:
    """Return the row of each item id of a map, ids as text."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repeats)
    except OSError as error:
        raise UserError(f"{path} cannot be opened: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON of item ids: {error}") from None
    if isinstance(content, list):
        return _from_list(path, content, n_rows)
    if isinstance(content, dict):
        return _from_object(path, content, n_rows)
    raise UserError(f"{path}: a list of item ids by row, or an object from item id to row, is expected")


def _from_list(path: Path, content: Sequence[Any], n_rows: int) -> dict[str, int]:
    if len(content) != n_rows or content[0] is not None:
        raise UserError(
            f"{path}: a list of {len(content)} entries; expected {n_rows}, as many as the teacher has rows, "
            "the first one null for the padding item"
        )
    rows: dict[str, int] = {}
    for row, item in enumerate(content[1:], start=1):
        if type(item) not in (str, int):
            raise UserError(f"{path}: entry {row} is no item id; a text or a whole number is expected")
        if str(item) in rows:
            raise UserError(f"{path}: item {item!r} stands in rows {rows[str(item)]} and {row}; each item has one row")
        rows[str(item)] = row
    return rows


def _from_object(path: Path, content: Mapping[str, Any], n_rows: int) -> dict[str, int]:
    items: dict[int, str] = {}
    for item, row in content.items():
        if type(row) is not int or not 1 <= row < n_rows:
            raise UserError(f"{path}: the row of item {item!r} must be a whole number from 1 to {n_rows - 1}")
        if row in items:
            raise UserError(f"{path}: items {items[row]!r} and {item!r} are both in row {row}; each row is one item's")
        items[row] = item
    return {item: row for row, item in items.items()}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for item, row in pairs:
        if item in content:
            raise ValueError(f"item {item!r} stands in it twice")
        content[item] = row
    return content
