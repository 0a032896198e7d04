"""Parquet, of any column types that identifiers, texts and times can be made from."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ckd.storage.errors import UserError


def read(path: Path) -> pa.Table:
    """Return the whole file.

    Raises:
        UserError: the file is torn or is not Parquet.
    """
    try:
        # ParquetFile, not read_table: the latter would take "name=value" folders above the file for columns.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
        table.validate(full=True)  # Arrow does not look at strings when it reads them: they may not be UTF-8.
        return table
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read as Parquet ({error}); write or download it again") from error
