"""Which files hold item text vectors that were made elsewhere. Imports nothing heavy.

Vectors come in three forms:

- ``.parquet``: the columns ``item_id``, and ``vector``, a list of floating-point numbers;
- ``.npy``: a matrix of floating-point numbers, one row an item;
- ``.feat1CLS``, ``.feat2CLS`` and their like, of UniSRec's authors: such a matrix, little-endian float32, no header.

Which item a row of a matrix belongs to is said by one file of the same stem beside it, either

- ``<stem>.item2index``, of UniSRec's authors: a line ``item_id TAB row``, rows from 0, for each row; or
- ``<stem>.ids.json``: a JSON list of the item ids, row by row.

Without either, the item ids are themselves the rows.
"""

import re
from pathlib import Path

from ckd.storage.errors import UserError

PARQUET, NUMPY = ".parquet", ".npy"
FEATURES = re.compile(r"\.feat\w+")
INDEX_ENDING, IDS_ENDING = ".item2index", ".ids.json"


def vector_files(path: Path) -> tuple[Path, ...]:
    """Return all files that determine the vectors: the file itself, then the one that names its rows if there is one.

    Raises:
        UserError: there is no such file, nothing here reads it, or two files name its rows.
    """
    if not (path.suffix in (PARQUET, NUMPY) or FEATURES.fullmatch(path.suffix)):
        raise UserError(
            f"{path}: item vectors are read from .parquet, .npy and .feat1CLS or .feat2CLS files, not from "
            f"{path.suffix or 'a file without ending'}"
        )
    if not path.is_file():
        state = "is not a file" if path.exists() else "does not exist"
        raise UserError(f"the file of item vectors {path} {state}; correct the path in the configuration")
    if path.suffix == PARQUET:
        return (path,)
    naming = [there for ending in (INDEX_ENDING, IDS_ENDING) if (there := path.with_suffix(ending)).is_file()]
    if len(naming) > 1:
        raise UserError(f"{naming[0]} and {naming[1].name} both name the rows of {path.name}; remove one of them")
    return (path, *naming)
