"""How users are split in folds, so that a teacher can label users whom its adaptation has not seen.

Imports nothing heavy: the split is part of keys.
"""

import hashlib
from typing import NamedTuple

FOLD_RULE = "1 + first 16 hex digits of sha256(user_id) mod folds"
"""The rule of :func:`fold_of` in words, as keys hold it: another rule is another text."""


class Fold(NamedTuple):
    """One of several folds of users.

    The teacher of a fold is adapted on the users of all other folds, and labels the training positions of its own.

    Attributes:
        number: 1 to ``of``.
        of: how many folds there are.
    """

    number: int
    of: int

    def __str__(self) -> str:
        return f"fold {self.number} of {self.of}"


def all_folds(of: int) -> list[Fold]:
    """Return the folds of a split in ``of``."""
    return [Fold(number, of) for number in range(1, of + 1)]


def fold_of(user_id: str | int, of: int) -> int:
    """Return the number of the fold that a user belongs to, 1 to ``of``.

    It is 1 + the first 16 hexadecimal digits of the SHA-256 of the identifier (its UTF-8 text; of a whole number, the
    decimal digits), modulo ``of``. So it follows from the identifier alone: neither the order of the users nor who else
    is in the corpus changes it, and a user of two domains is in the same fold of both. In DuckDB:
    ``1 + ('0x' || sha256(user_id::VARCHAR)[:16])::UBIGINT % of``.
    """
    return 1 + int(hashlib.sha256(str(user_id).encode()).hexdigest()[:16], 16) % of
