"""Labels of real shape without a teacher: a catalogue, users, and what two teachers that half agree would store.

Interactions have the lengths of five-core review data (5 and more, 9 in the mean) and a Zipf popularity. A position's
candidates are those of one of 2,048 tastes, popular items likelier; a teacher's scores of them are the taste's plus
noise of the position and noise of the teacher, the tail's mass is drawn to keep about 0.7 in the best hundred. The
target is a candidate every third time, and else any item.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus, Positions, write_corpus
from ckd.storage.keys import Address
from ckd.storage.labels import LabelBlock, round_float16, write_part
from ckd.storage.store import Store

ITEMS, K = 20_000, 100
SHARD = 16_384
"""Positions per shard: the default of ``labels.shard_rows``."""
_SHORTEST, _MEAN = 5, 9
_TASTES, _CANDIDATES = 2_048, 256
_TASTE, _TEACHER = 1, 2
_AISLES, _SHELVES = 14, 40

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


def corpus_artifact(store: Store, domain: str, positions: int) -> Artifact:
    """Write a corpus of about so many positions."""
    draw = np.random.default_rng(0)
    users = positions // (_MEAN - 1)
    lengths = _SHORTEST + draw.geometric(1 / (_MEAN - _SHORTEST + 1), users) - 1
    ends = np.cumsum(lengths)
    sequence = draw.permutation(ITEMS)[_popular(draw, int(ends[-1]))].astype(np.int32)
    trained = np.arange(len(sequence)) < np.repeat(ends - 2, lengths)
    offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32))
    table = {
        "user_id": [f"A{user:09}XQ7K" for user in range(users)],
        "items": pa.ListArray.from_arrays(offsets, pa.array(sequence)),
        "timestamps": pa.ListArray.from_arrays(offsets, pa.array(np.sort(draw.integers(1.3e9, 1.6e9, len(sequence))))),
    }
    popularity = np.bincount(sequence[trained], minlength=ITEMS).astype(np.int32)
    with store.draft(Address("corpus", {"domain": domain, "positions": positions})) as draft:
        write_corpus(draft, _items(draw, popularity), pa.table(table))
        return draft.commit()


def labels_artifact(store: Store, teacher: str, domain: str, corpus: Corpus) -> Artifact:
    """Write one teacher's labels of every position, without states, in shards as `ckd precompute` cuts them."""
    place = (("teacher", teacher), ("domain", domain))
    address = Address("labels", {"teacher": teacher, "corpus": corpus.key}, place)
    tastes = _tastes(corpus)
    with store.draft(address) as draft:
        for number, span in enumerate(corpus.ranges(SHARD)):
            block = _block(corpus.positions(*span), tastes, number, sum(map(ord, teacher)))
            write_part(draft, number, block, corpus, {})
        return draft.commit()


def _popular(draw: np.random.Generator, n: int) -> npt.NDArray[np.int64]:
    """Draw ranks in order of popularity, Zipf with exponent 1 behind the first tens."""
    weights = np.cumsum(1 / (np.arange(ITEMS) + 20))
    return np.searchsorted(weights, draw.uniform(0, weights[-1], n))


def _items(draw: np.random.Generator, popularity: Ints) -> pa.Table:
    aisle, shelf = draw.integers(0, _AISLES, ITEMS), draw.integers(0, _SHELVES, ITEMS)
    return pa.table(
        {
            "item": pa.array(np.arange(ITEMS, dtype=np.int32)),
            "item_id": [f"B{code:09}" for code in range(ITEMS)],
            "title": [
                f"item number {code} of this catalogue, with a title as long as they are" for code in range(ITEMS)
            ],
            "brand": [f"brand {number}" for number in draw.integers(0, 900, ITEMS)],
            "categories": [f"aisle {a}, shelf {a}.{s}" for a, s in zip(aisle, shelf, strict=True)],
            "description": ["what there is to say of it, " * number for number in draw.integers(0, 20, ITEMS)],
            "popularity": pa.array(popularity),
        }
    )


def _tastes(corpus: Corpus) -> tuple[Ints, Floats]:
    """Return candidates and their scores, int32 and float32 [tastes, candidates], distinct within a row."""
    draw = np.random.default_rng(_TASTE)
    popularity = np.log(corpus.items["popularity"].to_numpy() + 1).astype(np.float32)
    candidates = np.empty((_TASTES, _CANDIDATES), np.int32)
    scores = np.empty((_TASTES, _CANDIDATES), np.float32)
    for taste in range(_TASTES):
        noisy = 0.5 * popularity + draw.gumbel(size=ITEMS).astype(np.float32)
        candidates[taste] = np.argpartition(-noisy, _CANDIDATES)[:_CANDIDATES]
        scores[taste] = noisy[candidates[taste]]
    return candidates, scores - scores.mean(1, keepdims=True)


def _block(at: Positions, tastes: tuple[Ints, Floats], number: int, teacher: int) -> LabelBlock:
    shared, own = np.random.default_rng([_TASTE, number]), np.random.default_rng([_TEACHER, number, teacher])
    n = len(at)
    taste = (at.user * 7 + at.position // 3) % _TASTES
    noise = shared.normal(0, 0.7, (n, _CANDIDATES)) + own.normal(0, 0.7, (n, _CANDIDATES))
    scores = tastes[1][taste] + noise
    best = np.argpartition(-scores, K, axis=1)[:, :K]
    best = np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1), 1)
    items = np.take_along_axis(tastes[0][taste], best, 1)
    kept = np.take_along_axis(scores, best, 1)
    mass = own.beta(7, 3, n)
    logsumexp = np.log(np.exp(kept).sum(1)) - np.log(mass)
    logprobs = kept - logsumexp[:, None]
    rank = np.where(own.random(n) < 0.35, own.geometric(0.05, n), np.exp(own.uniform(np.log(K), np.log(ITEMS), n)))
    target_rank = np.clip(rank, 1, ITEMS).astype(np.int32)
    listed = np.take_along_axis(logprobs, np.minimum(target_rank - 1, K - 1)[:, None], 1)[:, 0]
    return LabelBlock(
        user=at.user,
        position=at.position,
        split=at.split,
        target=at.target,
        items=items,
        logprobs=round_float16(logprobs),
        logsumexp=logsumexp.astype(np.float32),
        kept_mass=mass.astype(np.float32),
        target_logprob=(listed - np.log(np.maximum(target_rank / K, 1))).astype(np.float32),
        target_rank=target_rank,
        entropy=own.normal(5, 0.8, n).astype(np.float32),
        state=None,
    )
