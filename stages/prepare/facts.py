"""What the manifest of a corpus remembers: sizes before and after, and what became of the rest."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from ckd.stages.prepare.build import BuiltCorpus, counts
from ckd.stages.prepare.raw import RawDomain
from ckd.storage.corpus import HELD_OUT, SPLITS, TEXT_FIELDS


def corpus_facts(raw: RawDomain, built: BuiltCorpus) -> dict[str, Any]:
    """Return the facts of a corpus.

    - ``before`` and ``after``: statistics of all usable rows and of what is in the corpus;
    - ``rejected``: unusable rows by file and reason;
    - ``dropped``: users, items and interactions outside the k-core, then those lost with too short sequences;
      items that nobody touched count as outside the core;
    - ``positions``: positions by split.
    """
    lengths = built.sequences["items"].combine_chunks().value_lengths().to_numpy()
    usable = {**counts(raw.user, raw.item), "items": raw.items.num_rows}
    after = {
        "users": built.sequences.num_rows,
        "items": built.items.num_rows,
        "interactions": int(np.sum(lengths)),
    }
    held_out = len(lengths)
    train = after["interactions"] - (HELD_OUT + 1) * held_out  # the first interaction is no target
    return {
        "before": {**usable, **_shape(usable), "text": _text_shares(raw.items)},
        "after": {**after, **_shape(after), "text": _text_shares(built.items)},
        "rejected": {file: dict(reasons) for file, reasons in raw.rejected.items()},
        "dropped": {"k_core": _less(usable, built.core), "too_short": _less(built.core, after)},
        "positions": dict(zip(SPLITS, (train, held_out, held_out), strict=True)),
    }


def _shape(size: Mapping[str, int]) -> dict[str, float]:
    cells = size["users"] * size["items"]
    return {
        "mean_length": round(size["interactions"] / size["users"], 4) if size["users"] else 0.0,
        "density": round(size["interactions"] / cells, 8) if cells else 0.0,
    }


def _text_shares(items: pa.Table) -> dict[str, float]:
    rows = max(items.num_rows, 1)
    return {name: round(1 - items[name].null_count / rows, 4) if items.num_rows else 0.0 for name in TEXT_FIELDS}


def _less(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: before[name] - after[name] for name in ("users", "items", "interactions")}
