"""Tables in the files that several stages read, one module per format: ``read(path) -> pyarrow.Table``."""

import importlib
from pathlib import Path

import pyarrow as pa

from ckd.storage.errors import UserError

FORMATS = {
    "parquet": "ckd.stages.tables.parquet",
    "csv": "ckd.stages.tables.delimited",
    "tsv": "ckd.stages.tables.delimited",
    "jsonl": "ckd.stages.tables.jsonl",
}
"""File extension to the module that reads it."""


def read_file(path: Path) -> pa.Table:
    """Return the table in a file, all rows in its order; the extension says which format it has.

    Raises:
        UserError: the extension is none of :data:`FORMATS`, the file is not there or can't be read, or it names a
            column twice.
    """
    format = path.suffix.removeprefix(".").lower()
    if format not in FORMATS:
        raise UserError(f"{path}: the name must end in one of {', '.join(f'.{name}' for name in FORMATS)}")
    if not path.is_file():
        raise UserError(f"{path} is a folder, not a file" if path.is_dir() else f"there is no file {path}")
    table: pa.Table = importlib.import_module(FORMATS[format]).read(path)
    repeated = {name for name in table.column_names if table.column_names.count(name) > 1}
    if repeated:
        raise UserError(f"{path} names the column {min(repeated)!r} more than once; rename or remove one")
    return table
