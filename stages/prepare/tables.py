"""What every reader of a domain hands to validation: two tables, and how their rows are called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ckd.stages.masks import Bools


def row_number(row: int) -> str:
    """Return what a row is called in a message, counted from 1 without the header."""
    return f"row {row + 1}"


@dataclass(frozen=True)
class RawTables:
    """The rows of a domain, not yet validated.

    Attributes:
        items: one row per item, under the names of its file or under ours.
        interactions: one row per interaction; those at the same time are in order.
        items_path: the file that the items are from, for messages.
        interactions_path: the file that the interactions are from, for messages.
        unusable: bool [interactions] by reason, for what a format knows to be unusable beside what every table may be.
        call: what the interaction in a row, counted from 0, is called in messages.
    """

    items: pa.Table
    interactions: pa.Table
    items_path: Path
    interactions_path: Path
    unusable: Mapping[str, Bools] = field(default_factory=dict)
    call: Callable[[int], str] = row_number
