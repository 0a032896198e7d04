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
            f"{weights.parent}: this teacher has item vectors of another catalogue than the domain's {corpus.n_items} items; "
            "take the pre-trained one, and adapt that to this domain"
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
            f"{weights}: holds a fine-tuned item table of {n_rows} rows, and does not say whose they are; name the authors' smap.json "
            "under item_ids"
        )
    row_of = _row_of(item_ids, n_rows)
    ids = [str(item) for item in corpus.items["item_id"].to_pylist()]
    missing = [item for item in ids if item not in row_of]
    if missing:
        raise UserError(
            f"{item_ids}: has no row for {len(missing)} of the domain's {len(ids)} items (first: {missing[0]!r}); name the map "
            "of the catalogue that the teacher was fine-tuned on"
        )
    return np.array([row_of[item] for item in ids], np.int64)


def _row_of(path: Path, n_rows: int) -> dict[str, int]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not JSON in UTF-8: {error}") from None
    pairs = list(content.items()) if isinstance(content, dict) else None
    if isinstance(content, list):
        pairs = [(item, row) for row, item in enumerate(content)]
    if pairs is None or not all(isinstance(row, int) and not isinstance(row, bool) for _, row in pairs):
        raise UserError(f"{path}: a list of item ids by row, or an object of item id to row, is expected")
    row_of = {str(item): row for item, row in pairs}
    rows = sorted(row_of.values())
    if len(row_of) < len(pairs) or rows != list(range(n_rows)):
        raise UserError(
            f"{path}: names {len(row_of)} items and rows {rows[0] if rows else 0} to {rows[-1] if rows else 0}; the item table has "
            f"{n_rows} rows, each of which needs one item"
        )
    return row_of
