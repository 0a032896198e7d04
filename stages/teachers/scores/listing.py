"""Lists as files hold them, in one form whatever the format, and how a mistake in them is named."""

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ckd.storage.errors import UserError

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Listing:
    """P lists, best first, under the identifiers of their makers.

    Attributes:
        path: the file, for messages.
        user: string or int64 [P], null where it is missing.
        position: int64 [P].
        offsets: int64 [P + 1]; list p is ``items[offsets[p]:offsets[p + 1]]``.
        items: string or int64 [M], null where one is missing.
        scores: float64 [M], or None if the lists have none.
        rows: int64 [P], number of the file's row in which each list stands, or begins, from 1.
        entry_rows: int64 [M], the same for each item.
    """

    path: Path
    user: pa.Array
    position: Int64s
    offsets: Int64s
    items: pa.Array
    scores: Float64s | None
    rows: Int64s
    entry_rows: Int64s

    @property
    def length(self) -> Int64s:
        """Items per list, [P]."""
        return np.diff(self.offsets)

    @property
    def owner(self) -> Int64s:
        """Number of the list of each item, [M]."""
        return np.repeat(np.arange(len(self.rows)), self.length)

    def refuse(self, number: int, problem: str) -> NoReturn:
        """Raise a UserError about one list."""
        self._raise(int(self.rows[number]), number, problem)

    def refuse_entry(self, entry: int, problem: str) -> NoReturn:
        """Raise a UserError about one item of a list."""
        number = int(np.searchsorted(self.offsets, entry, side="right")) - 1
        self._raise(int(self.entry_rows[entry]), number, problem)

    def _raise(self, row: int, number: int, problem: str) -> NoReturn:
        user = self.user[number].as_py()
        raise UserError(f"{self.path}, row {row} (user {user!r}, position {self.position[number]}): {problem}")
