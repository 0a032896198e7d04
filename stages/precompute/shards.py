"""How the positions of a domain are cut into shards, and which of them are labelled."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ckd.stages.precompute.settings import LabelSettings
from ckd.storage.artifact import Receipt
from ckd.storage.corpus import SPLITS, Corpus, Positions


@dataclass(frozen=True)
class Shard:
    """A fixed range of users: number, first user, last user (exclusive)."""

    number: int
    first: int
    last: int


def shards(corpus: Corpus, settings: LabelSettings) -> list[Shard]:
    """Return the cut of a corpus into shards; it depends on the corpus and ``shard_rows`` only."""
    return [Shard(n, first, last) for n, (first, last) in enumerate(corpus.ranges(settings.shard_rows))]


def cut_of(parts: Mapping[str, Receipt]) -> list[Shard]:
    """Return the cut of labels that were made before, from the receipts of their shards."""
    facts = [parts[name].facts for name in sorted(parts)]
    return [Shard(n, each["first_user"], each["last_user"]) for n, each in enumerate(facts)]


def labelled_positions(corpus: Corpus, settings: LabelSettings) -> int:
    """Return how many positions of a corpus the settings ask for."""
    return int(asked(corpus.positions(), settings).sum())


def asked(positions: Positions, settings: LabelSettings) -> npt.NDArray[np.bool_]:
    """Return whether each position is of a split that is labelled, bool [N]."""
    return np.isin(positions.split, [SPLITS.index(split) for split in settings.splits])


def selected(positions: Positions, rows: npt.NDArray[np.bool_]) -> Positions:
    """Return some of the positions, in order."""
    return Positions(*(column[rows] for column in vars(positions).values()))
