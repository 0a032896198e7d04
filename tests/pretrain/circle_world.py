"""Users who walk around a circle of items, each with a text of its own: the last item tells the next."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ckd.storage.corpus import Corpus


def circle_corpus(
    draw: np.random.Generator, users: int, colours: Sequence[str], things: Sequence[str], step: int = 1
) -> Corpus:
    """Return a domain with an item for each colour of each thing, around which each user goes by some step."""
    n_items = len(colours) * len(things)
    lengths = draw.integers(5, 12, users)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    walks = [(draw.integers(n_items) + step * np.arange(n)) % n_items for n in lengths]
    items = {
        "item": np.arange(n_items, dtype=np.int32),
        "item_id": [f"item-{code:02d}" for code in range(n_items)],
        "title": [f"{colours[code % len(colours)]} {things[code // len(colours)]}" for code in range(n_items)],
        "brand": [things[code % len(things)] for code in range(n_items)],
        "categories": pa.nulls(n_items, pa.string()),
        "description": pa.nulls(n_items, pa.string()),
        "popularity": np.ones(n_items, np.int64),
    }
    user_ids = pa.array([f"u{n:03d}" for n in range(users)])
    return Corpus("circle", pa.table(items), user_ids, offsets, np.concatenate(walks).astype(np.int32))
