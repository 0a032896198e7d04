"""Small worlds as distillation is tested on, and small corpora whose items are described."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from small_worlds import MakeWorld, world_in

from ckd.storage.corpus import Corpus

Texts = Sequence[str | None]
MakeCorpus = Callable[..., Corpus]


def described_corpus(
    sequences: Sequence[Sequence[int]],
    title: Texts,
    brand: Texts | None = None,
    categories: Texts | None = None,
    key: str = "k" * 16,
) -> Corpus:
    n_items = len(title)
    columns = {"title": title, "brand": brand, "categories": categories, "description": None}
    items = {name: pa.array(texts or [None] * n_items, pa.string()) for name, texts in columns.items()}
    return Corpus(
        key=key,
        items=pa.table({"item": pa.array(np.arange(n_items, dtype=np.int32)), **items}),
        user_ids=pa.array([f"u{user}" for user in range(len(sequences))]),
        offsets=np.cumsum([0, *map(len, sequences)]).astype(np.int64),
        sequence=np.array([item for sequence in sequences for item in sequence], np.int32),
    )


@pytest.fixture
def make_world(tmp_path: Path) -> MakeWorld:
    """A function of sequences and the size of the catalogue; each call makes a store of its own."""
    return partial(world_in, tmp_path)


@pytest.fixture(scope="session")
def make_corpus() -> MakeCorpus:
    """A function of sequences and the texts of the items."""
    return described_corpus


@pytest.fixture
def shop() -> Corpus:
    """9 items, some of which lack a field or all, and 8 users with 3 to 9 items."""
    draw = np.random.default_rng(0)
    return described_corpus(
        [draw.integers(0, 9, length).tolist() for length in (3, 9, 4, 5, 6, 7, 8, 9)],
        ["red pen", "blue pen", "red red ink", None, "Ink, blue", "glue", "steel nail", "nail", None],
        ["Acme", "acme ", "Bolt", None, "Bolt", "Acme", None, "Cup", None],
        [
            "Office, Pens",
            "Office,Pens",
            "Office, Ink",
            "Office",
            None,
            "Office, Glue",
            "Tools,",
            " Tools ,Nails",
            None,
        ],
    )
