"""Which passes of a causal encoder give the vectors of all positions of some users.

One causal pass over a sequence gives every history that starts at its first item. A history longer than the encoder's
maximum is cut to its last items, so its first item is another one for each position: from there on every position is
a pass of its own, of which the last vector is read.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ckd.storage.corpus import Corpus

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """Passes over slices of the corpus' flat item sequence.

    Attributes:
        start: int64 [W], first item of each pass in ``Corpus.sequence``.
        length: int64 [W], its items.
        row: int64 [W], output row of the first vector read.
        reads: int64 [W], vectors read: the last ``reads`` of the pass.
    """

    start: Int64s
    length: Int64s
    row: Int64s
    reads: Int64s


def windows(corpus: Corpus, first: int, last: int, max_length: int) -> Windows:
    """Return the passes that cover every position of the users ``first`` to ``last`` (exclusive).

    Output rows follow ``corpus.positions(first, last)``.
    """
    offsets = corpus.offsets[first:last]
    histories = corpus.lengths[first:last] - 1
    rows = np.cumsum(histories) - histories
    whole = np.minimum(histories, max_length)
    cut = histories - whole
    user = np.repeat(np.arange(last - first), cut)
    nth = np.arange(len(user)) - np.repeat(np.cumsum(cut) - cut, cut)
    return Windows(
        start=np.concatenate([offsets, offsets[user] + nth + 1]),
        length=np.concatenate([whole, np.full(len(user), max_length)]),
        row=np.concatenate([rows, rows[user] + max_length + nth]),
        reads=np.concatenate([whole, np.ones(len(user), np.int64)]),
    )


def batches(passes: Windows, batch_size: int) -> Iterator[Int64s]:
    """Yield indices of passes, longest first, so that the passes of a batch hardly differ in length."""
    order = np.argsort(-passes.length, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
