"""Lists in the files of DLLM2Rec (Cui et al., RecSys 2024; arXiv 2405.00338): two matrices of numbers as text.

The authors' ``myrank_train.txt`` holds the integer codes of the listed items, ``confidence_train.txt`` their distances
(the language model's answer to the item, in the space of item vectors: smaller is better; the authors weigh by
exp(-distance), so minus the distance is our raw score). A row belongs to the training example of the same number, which
the files do not name: the tables ``positions`` and ``item_ids`` say whose history and which items they are about.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from ckd.stages.identifiers import as_ids
from ckd.stages.tables import read_file
from ckd.stages.teachers.scores.listing import Float64s, Int64s, Listing
from ckd.stages.teachers.scores.tables import keys_of
from ckd.storage.errors import UserError


def read_dllm2rec(files: Mapping[str, Path]) -> Listing:
    """Return the lists of a ranking file.

    Args:
        files: ``path``, ``positions``, ``item_ids`` and, optionally, ``confidence``.

    Raises:
        UserError: a file can't be read, or they do not fit together.
    """
    path = files["path"]
    ranking = _matrix(path)
    user, position = keys_of(files["positions"], read_file(files["positions"]))
    if len(ranking) != len(position):
        raise UserError(
            f"{path} has {len(ranking):,} rows and {files['positions']} has {len(position):,}; each row of the ranking "
            "needs its user and position"
        )
    rows = np.arange(1, len(ranking) + 1)
    entry_rows = np.repeat(rows, ranking.shape[1])
    codes = _codes(path, ranking, entry_rows)
    confidence = files.get("confidence")
    return Listing(
        path=path,
        user=user,
        position=position,
        offsets=np.arange(0, ranking.size + 1, ranking.shape[1]),
        items=_named(path, codes, entry_rows, files["item_ids"]),
        scores=None if confidence is None else -_distances(confidence, ranking.shape, path).ravel(),
        rows=rows,
        entry_rows=entry_rows,
    )


def _matrix(path: Path) -> Float64s:
    """Return a matrix of numbers separated by white space, float64 [R, C]."""
    text = path.read_bytes()
    if not text.strip():
        raise UserError(f"{path} is empty; it needs one list of numbers a row")
    if not text.endswith(b"\n"):
        raise UserError(
            f"{path} does not end with a line end, so its last number may be cut; write it again or add one"
        )
    try:
        return np.loadtxt(path, ndmin=2, comments=None, encoding="utf-8")
    except ValueError as error:
        raise UserError(_complaint(path, text, str(error))) from None


def _complaint(path: Path, text: bytes, reason: str) -> str:
    """Find the row again, slowly, to name it rightly: numpy does not count as people do."""
    columns = 0
    for row, line in enumerate(filter(None, map(bytes.split, text.splitlines())), start=1):
        columns = columns or len(line)
        if len(line) != columns:
            return f"{path}, row {row}: {len(line)} numbers where row 1 has {columns}; is the file whole?"
        for word in line:
            try:
                float(word)
            except ValueError:
                return f"{path}, row {row}: {word.decode(errors='replace')!r} is not a number"
    return f"{path} cannot be read ({reason}); write it again"


def _codes(path: Path, ranking: Float64s, rows: Int64s) -> Int64s:
    codes = ranking.ravel()
    wrong = np.flatnonzero(~((codes >= 0) & (codes < 2.0**53) & (np.floor(codes) == codes)))
    if len(wrong):
        raise UserError(
            f"{path}, row {rows[wrong[0]]}: {codes[wrong[0]]:g} is no item code; codes are whole numbers from 0"
        )
    return codes.astype(np.int64)


def _distances(path: Path, shape: tuple[int, ...], ranking: Path) -> Float64s:
    distances = _matrix(path)
    if distances.shape != shape:
        have, want = (f"{rows:,} x {columns:,}" for rows, columns in (distances.shape, shape))
        raise UserError(f"{path} is {have} numbers and {ranking} is {want}; they must have the same shape")
    wrong = ~np.isfinite(distances)
    wrong[:, 1:] |= distances[:, 1:] < distances[:, :-1]
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise UserError(
            f"{path}, row {row + 1}: {distances[row, column]:g} in column {column + 1}; distances must be finite and "
            "must not fall within a row, for the nearest item is listed first"
        )
    return distances


def _named(path: Path, codes: Int64s, rows: Int64s, item_ids: Path) -> pa.Array:
    """Return the identifier of each code."""
    ids, known = _item_ids(item_ids)
    order = np.argsort(known)
    place = np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)
    unknown = np.flatnonzero(known[order[place]] != codes)
    if len(unknown):
        at = unknown[0]
        raise UserError(f"{path}, row {rows[at]}: {item_ids} has no item of code {codes[at]}; add it")
    return ids.take(pa.array(order[place]))


def _item_ids(path: Path) -> tuple[pa.Array, Int64s]:
    """Return the item ids of a JSON file and the code of each."""
    expected = "it must hold a list of item ids in order of their codes, or an object {item id: code}"
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        pairs = held.items() if isinstance(held, dict) else [(item, code) for code, item in enumerate(held)]
        ids, codes = [item for item, _ in pairs], [code for _, code in pairs]
        if not isinstance(held, dict | list) or not ids or not all(type(code) is int for code in codes):
            raise ValueError("other values are in it, or none")
        column = as_ids(pa.chunked_array([pa.array(ids)]), path, "item ids")
        numbers = np.array(codes, np.int64)
    except (OSError, ValueError, TypeError, OverflowError, RecursionError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({error}); {expected}") from None
    if len(np.unique(numbers)) < len(numbers):
        raise UserError(f"{path} gives two items one code; {expected}")
    return column, numbers
