"""Which row of a fine-tuned item table belongs to which item of a corpus."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ckd.stages.teachers.checkpoint import catalogue_digest
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError


def check_items(weights: Path, items: str, corpus: Corpus) -> None:
    """Refuse a teacher that ckd adapted to another catalogue.

    Raises:
        UserError: the digest of its items is not that of the corpus.
    """
    if items != catalogue_digest(corpus):
        raise UserError(
            f"{weights.parent}: this teacher has item vectors of another catalogue than the domain's {corpus.n_items} "
            "items; take the pre-trained one, and adapt that to this domain"
        )


def rows_of_items(weights: Path, item_ids: Path | None, n_rows: int, corpus: Corpus) -> npt.NDArray[np.int64]:
    """Return the row of each item of a corpus, int64 [n_items], in order of code.

    Args:
        weights: the file with the table, for messages.
        item_ids: JSON list of item ids by row, or object of item id to row (the authors' ``smap.json``).
        n_rows: of the table.
        corpus: the domain.

    Raises:
        UserError: no file, or one that does not name each item of the corpus once.
    """
    if item_ids is None:
        raise UserError(
            f"{weights}: holds a fine-tuned item table of {n_rows} rows and does not say whose they are; name the "
            "authors' smap.json under item_ids"
        )
    row_of = _row_of(item_ids, n_rows)
    ids = [str(item) for item in corpus.items["item_id"].to_pylist()]
    missing = [item for item in ids if item not in row_of]
    if missing:
        raise UserError(
            f"{item_ids}: has no row for {len(missing)} of the domain's {len(ids)} items (first: {missing[0]!r}); name "
            "the map of the catalogue that the teacher was fine-tuned on"
        )
    return np.array([row_of[item] for item in ids], np.int64)


def _row_of(path: Path, n_rows: int) -> dict[str, int]:
    row_of: dict[str, int] = {}
    item_of: dict[int, str] = {}
    for item, row in _pairs(path):
        if not 0 <= row < n_rows:
            raise UserError(f"{path}: item {item!r} has row {row}, the item table has rows 0 to {n_rows - 1}")
        if item in row_of:
            raise UserError(f"{path}: item {item!r} has two rows, {row_of[item]} and {row}; each item needs one")
        if row in item_of:
            raise UserError(f"{path}: row {row} is of two items, {item_of[row]!r} and {item!r}; each row needs one")
        row_of[item], item_of[row] = row, item
    missing = [row for row in range(n_rows) if row not in item_of]
    if missing:
        raise UserError(f"{path}: names no item for row {missing[0]} of the item table; each of its {n_rows} needs one")
    return row_of


def _pairs(path: Path) -> list[tuple[str, int]]:
    """Return (item id, row) of a file, in its order, also those that come twice."""
    try:
        # An object becomes a tuple of its pairs.
        content: Any = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=tuple)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON in UTF-8: {error}") from None
    if isinstance(content, list):
        content = tuple((item, row) for row, item in enumerate(content))
    expected = isinstance(content, tuple) and all(
        type(row) is int and type(item) in (str, int) for item, row in content
    )
    if not expected:
        raise UserError(f"{path}: a list of item ids by row, or an object of item id to row, is expected")
    return [(str(item), row) for item, row in content]
