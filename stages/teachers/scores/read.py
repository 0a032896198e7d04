"""From files to the ranked lists of one domain, checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ckd.stages.teachers.contract import RankedLists
from ckd.stages.teachers.scores.check import matched
from ckd.stages.teachers.scores.dllm2rec import read_dllm2rec
from ckd.stages.teachers.scores.probabilities import log_probabilities
from ckd.stages.teachers.scores.tables import read_table_lists
from ckd.storage.corpus import Corpus

if TYPE_CHECKING:
    from ckd.stages.teachers.scores import Settings


def read_lists(settings: "Settings", files: Mapping[str, Path], corpus: Corpus) -> RankedLists:
    """Return the lists in the files of :meth:`Settings.files`; the order of the files' rows does not matter.

    Raises:
        UserError: a file can't be read, or something in it does not fit the domain or itself.
    """
    if settings.format == "dllm2rec":
        listing = read_dllm2rec(files)
    else:
        listing = read_table_lists(files["path"], settings.scores != "none")
    place, items = matched(listing, corpus)
    logprobs = log_probabilities(listing, settings, corpus.n_items)

    order = np.argsort(place)
    length = listing.length[order]
    taken = np.arange(len(items)) + np.repeat(listing.offsets[:-1][order] - (np.cumsum(length) - length), length)
    per_position = np.zeros(corpus.n_positions, np.int64)
    per_position[place] = listing.length
    return RankedLists(
        offsets=np.append(0, np.cumsum(per_position)),
        items=items[taken],
        logprobs=logprobs[taken],
        source=str(listing.path),
        skip_missing=settings.missing == "skip",
    )
