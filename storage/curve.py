"""Training curves: one row per epoch, kept with teachers and runs alike."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from ckd.storage.draft import Draft
from ckd.storage.formats import CURVE
from ckd.storage.parquet import write_table


def write_curve(draft: Draft, curve: Sequence[Mapping[str, float]]) -> None:
    """Write one row per epoch; the columns are those of the first row."""
    table = pa.Table.from_pylist([dict(row) for row in curve])
    draft.add(CURVE, lambda path: write_table(table, path), rows=table.num_rows)
