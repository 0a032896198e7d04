"""Small worlds whose right answer is known: real corpora, real label artifacts, in a real store."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus, read_corpus, write_corpus
from ckd.storage.keys import Address
from ckd.storage.labels import LabelBlock, write_part
from ckd.storage.store import Store
from ckd.storage.vectors import write_vectors

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class World:
    """One domain in a store, and how a teacher's opinion of it gets there."""

    store: Store
    artifact: Artifact
    corpus: Corpus

    def label(
        self,
        teacher: str,
        scores: Array,
        k: int,
        *,
        rows: Iterable[int] | None = None,
        shards: int = 2,
        state: Array | None = None,
        vectors: Array | None = None,
    ) -> Artifact:
        """Commit the labels of a teacher with these raw scores [n_positions, n_items].

        ``rows`` are the positions that are written, in this order, in ``shards`` of like size; all of them, in order,
        by default.
        """
        order = np.arange(self.corpus.n_positions) if rows is None else np.asarray(list(rows), np.int64)
        block = dense_block(self.corpus, scores, k, state).take(order)
        with self.store.draft(
            Address("labels", {"teacher": teacher}, (("teacher", teacher), ("domain", "d")))
        ) as draft:
            for number, part in enumerate(np.array_split(np.arange(len(order)), shards)):
                write_part(draft, number, block.take(part), self.corpus, {})
            if vectors is not None:
                write_vectors(draft, vectors.astype(np.float32))
            return draft.commit()


def dense_block(corpus: Corpus, scores: Array, k: int, state: Array | None = None) -> LabelBlock:
    """Labels of every position of a corpus from the scores of every item, by brute force."""
    at = corpus.positions()
    scores = np.asarray(scores, np.float64)
    logsumexp = np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1)
    logprobs = scores - logsumexp[:, None]
    best = np.argsort(-logprobs, axis=1, kind="stable")
    kept = np.take_along_axis(logprobs, best[:, :k], 1)
    return LabelBlock(
        user=at.user,
        position=at.position,
        split=at.split,
        target=at.target,
        items=best[:, :k].astype(np.int32),
        logprobs=kept.astype(np.float32),
        logsumexp=logsumexp.astype(np.float32),
        kept_mass=np.exp(kept).sum(1).clip(max=1).astype(np.float32),
        target_logprob=logprobs[np.arange(len(at)), at.target].astype(np.float32),
        target_rank=(1 + np.argmax(best == at.target[:, None], axis=1)).astype(np.int32),
        entropy=-(np.exp(logprobs) * logprobs).sum(1).astype(np.float32),
        state=None if state is None else state.astype(np.float32),
    )


def commit_corpus(store: Store, sequences: Sequence[Sequence[int]], n_items: int) -> Artifact:
    """Commit a corpus of these sequences; user and item identifiers are texts."""
    lists = [np.asarray(sequence, np.int32) for sequence in sequences]
    trained = np.concatenate([sequence[:-2] for sequence in lists])
    texts: Mapping[str, list[str]] = {
        name: [f"{name} {code}" for code in range(n_items)] for name in ("title", "brand", "categories", "description")
    }
    items = {
        "item": pa.array(np.arange(n_items, dtype=np.int32)),
        "item_id": [f"i{code:03}" for code in range(n_items)],
        **texts,
        "popularity": pa.array(np.bincount(trained, minlength=n_items).astype(np.int32)),
    }
    users = {
        "user_id": [f"u{user:04}" for user in range(len(lists))],
        "items": pa.array(lists, pa.list_(pa.int32())),
        "timestamps": pa.array([np.arange(len(sequence)) for sequence in lists], pa.list_(pa.int64())),
    }
    inputs = {"sequences": [[int(item) for item in sequence] for sequence in lists], "n_items": n_items}
    with store.draft(Address("corpus", inputs)) as draft:
        write_corpus(draft, pa.table(items), pa.table(users))
        return draft.commit()


MakeWorld = Callable[[Sequence[Sequence[int]], int], World]


def world_in(folder: Path, sequences: Sequence[Sequence[int]], n_items: int) -> World:
    """A world with a store of its own below a folder."""
    store = Store(folder / f"store-{len(list(folder.iterdir()))}")
    artifact = commit_corpus(store, sequences, n_items)
    return World(store, artifact, read_corpus(artifact))


def random_sequences(seed: int, users: int, n_items: int, longest: int) -> list[list[int]]:
    """Sequences of 3 to ``longest`` items, the first of them of 3 (nothing to train on) and of ``longest``."""
    draw = np.random.default_rng(seed)
    lengths = [3, longest, *draw.integers(3, longest + 1, users - 2)]
    return [draw.integers(0, n_items, length).tolist() for length in lengths]
