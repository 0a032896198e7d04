"""CSV and TSV: UTF-8 with or without a byte-order mark, one header row, RFC 4180 quotes, all values strings.

Nothing is guessed from the look of a value, so that identifiers such as ``007`` or ``NA`` stay what they are.
"""

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as arrow_csv

from ckd.storage.errors import UserError

BLOCK_BYTES = 1 << 26
"""Arrow wants every row to fit into one block; no item description is that long."""


def read(path: Path) -> pa.Table:
    """Return the whole file, all columns string; an empty field is an empty string.

    Raises:
        UserError: no header, a row with too few or too many fields, a quote that is never closed, or bytes that are
            not UTF-8; the text names the file and the row.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    names = _header(path, delimiter)
    bad_rows: list[arrow_csv.InvalidRow] = []

    def remember(row: arrow_csv.InvalidRow) -> str:
        bad_rows.append(row)
        return "error"

    try:
        table = arrow_csv.read_csv(
            path,
            # Only a single thread counts rows.
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=remember
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except (OSError, pa.ArrowException) as error:
        raise UserError(_complaint(path, error, bad_rows)) from error
    _refuse_open_quote(path, table, delimiter)
    return table


def _header(path: Path, delimiter: str) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            names = next((row for row in csv.reader(stream, delimiter=delimiter) if row), [])
    except UnicodeDecodeError as error:
        raise UserError(_not_utf8(path)) from error
    except (OSError, csv.Error) as error:
        raise UserError(f"{path}: the header row cannot be read ({error}); write the file again") from error
    if not names:
        raise UserError(f"{path} is empty; its first row must name the columns")
    return names


def _complaint(path: Path, error: Exception, bad_rows: list[arrow_csv.InvalidRow]) -> str:
    if bad_rows:
        row = bad_rows[0]
        return (
            f"{path}, row {row.number - 1}: {row.actual_columns} fields where the header has "
            f"{row.expected_columns}: {row.text[:80]!r}; quote values that hold the delimiter"
        )
    if "UTF8" in str(error):
        return _not_utf8(path)
    return f"{path} cannot be read ({error}); write or download it again"


def _not_utf8(path: Path) -> str:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return f"{path}, line {number}: not UTF-8; save the file as UTF-8"
    return f"{path}: not UTF-8; save the file as UTF-8"


def _refuse_open_quote(path: Path, table: pa.Table, delimiter: str) -> None:
    """Arrow silently takes all that follows an unclosed quote for the last value: a torn file would pass."""
    if table.num_rows == 0:
        return
    value = table.column(table.num_columns - 1)[-1].as_py()
    before = delimiter if table.num_columns > 1 else "\n"
    tail = (before + '"' + value.replace('"', '""')).encode()
    with path.open("rb") as stream:
        stream.seek(max(path.stat().st_size - len(tail), 0))
        if stream.read() == tail:
            raise UserError(f"{path}, row {table.num_rows}: a quote is opened and never closed; is the file whole?")
