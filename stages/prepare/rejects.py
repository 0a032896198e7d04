"""Raw rows that can't be used: why, how many, and whether there are too many of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ckd.stages.masks import Bools
from ckd.stages.prepare.tables import row_number
from ckd.storage.errors import UserError

REASONS = {
    "missing_item_id": "without item_id",
    "duplicate_item_id": "repeat an item_id of an earlier row",
    "missing_user_id": "without user_id",
    "unknown_item_id": "with an item_id that the items file lacks",
    "unusable_timestamp": "with a missing or unreadable timestamp",
    "no_held_out_item": "of users without a validation or a test item",
}
"""Name in the facts to words in the message."""


@dataclass(frozen=True)
class Rejected:
    """The unusable rows of one file.

    Attributes:
        usable: bool [rows].
        counts: rows by reason, every reason of the file listed; a row counts for the first one that fits it.
        examples: the first row of each reason that occurs, counted from 0.
    """

    usable: Bools
    counts: dict[str, int]
    examples: dict[str, int]


def reject(reasons: dict[str, Bools], rows: int) -> Rejected:
    """Count the rows by the first of the reasons (name to bool [rows]) that is true of them."""
    usable = np.ones(rows, dtype=bool)
    counts, examples = {}, {}
    for name, mask in reasons.items():
        fresh = np.flatnonzero(mask & usable)
        counts[name] = len(fresh)
        if len(fresh):
            examples[name] = int(fresh[0])
        usable[fresh] = False
    return Rejected(usable, counts, examples)


def check_share(
    rejected: Rejected, max_rejected: float, path: Path, where: str, call: Callable[[int], str] = row_number
) -> None:
    """Refuse a file of which more than the allowed share is unusable.

    Args:
        rejected: the rows of this file.
        max_rejected: the share of all rows that may be unusable.
        path: the file.
        where: the configuration key of the domain.
        call: what a row, counted from 0, is called.

    Raises:
        UserError: with the number of rows and the first row for each reason.
    """
    rows, total = len(rejected.usable), sum(rejected.counts.values())
    if total <= max_rejected * rows:
        return
    details = ", ".join(
        f"{count} {REASONS[name]} (first: {call(rejected.examples[name])})"
        for name, count in rejected.counts.items()
        if count
    )
    raise UserError(
        f"{path}: {total} of {rows} rows ({total / rows:.1%}) are unusable, {max_rejected:.1%} are allowed: "
        f"{details}; correct the rows, or raise {where}.max_rejected"
    )
