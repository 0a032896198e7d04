"""Worlds whose right answer is known by construction, for students that see the order of a history and for others."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ckd.storage.corpus import Corpus

Array = npt.NDArray[Any]
Sequences = list[list[int]]
BLOCKS = 3


@dataclass(frozen=True)
class Truth:
    """A kind of world whose right answer is known by construction.

    Attributes:
        sequences: (users, n_items, seed) to sequences that say the rule.
        silent: the same where the training part says nothing of what the held-out items follow.
        best: (corpus) to bool [n_positions, n_items], the items that the rule of ``silent`` puts at each position.
        right: (best items [n_users, n_items] in order, corpus) to the share of users for whom they are right.
    """

    sequences: Callable[[int, int, int], Sequences]
    silent: Callable[[int, int, int], Sequences]
    best: Callable[[Corpus], Array]
    right: Callable[[Array, Corpus], float]


def successor(n_items: int) -> Array:
    """What follows each item in a world without chance: one cycle through all items."""
    order = np.random.default_rng(0).permutation(n_items)
    follows = np.empty(n_items, np.int64)
    follows[order] = np.roll(order, -1)
    return follows


def walks(users: int, n_items: int, seed: int, chance: float = 0.0) -> Sequences:
    """Each item is followed by its successor, but for a share of surprises; a held-out item is never one."""
    draw, follows = np.random.default_rng(seed), successor(n_items)
    made = []
    for length in draw.integers(4, 10, users):
        walk = [int(draw.integers(n_items))]
        for place in range(1, length):
            surprise = place < length - 2 and draw.random() < chance
            walk.append(int(draw.integers(n_items) if surprise else follows[walk[-1]]))
        made.append(walk)
    return made


def successors(corpus: Corpus) -> Array:
    at = corpus.positions()
    last = corpus.sequence[corpus.offsets[at.user] + at.position - 1]
    return successor(corpus.n_items)[last][:, None] == np.arange(corpus.n_items)


def first_is_successor(ordered: Array, corpus: Corpus) -> float:
    last = corpus.sequence[corpus.offsets[1:] - 2]
    return float((ordered[:, 0] == successor(corpus.n_items)[last]).mean())


def block_of(items: Array, n_items: int) -> Array:
    """A third of the catalogue each; which, is not seen from the code."""
    return successor(n_items)[items] % BLOCKS


def stays(users: int, n_items: int, seed: int, favourites: bool = False) -> Sequences:
    """A checker board: every user stays in a block, in no order. The held-out items may be the block's favourites."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(users):
        block = np.flatnonzero(block_of(np.arange(n_items), n_items) == number % BLOCKS)
        stay = draw.choice(block, draw.integers(5, 9)).tolist()
        made.append([*stay[:-2], *draw.permutation(block[:2]).tolist()] if favourites else stay)
    return made


def favourites_of_block(corpus: Corpus) -> Array:
    """The first two items of the block that a user is in."""
    at, items = corpus.positions(), np.arange(corpus.n_items)
    block = block_of(items, corpus.n_items)
    favourite = np.isin(items, [np.flatnonzero(block == number)[:2] for number in range(BLOCKS)])
    own = block_of(corpus.sequence[corpus.offsets[at.user]], corpus.n_items)
    return favourite & (own[:, None] == block)


def block_comes_first(ordered: Array, corpus: Corpus) -> float:
    own = block_of(corpus.sequence[corpus.offsets[:-1]], corpus.n_items)
    first = block_of(ordered[:, : corpus.n_items // BLOCKS], corpus.n_items)
    return float((first == own[:, None]).all(1).mean())


TRUTHS = {
    "successors": Truth(walks, partial(walks, chance=1.0), successors, first_is_successor),
    "blocks": Truth(stays, partial(stays, favourites=True), favourites_of_block, block_comes_first),
}
