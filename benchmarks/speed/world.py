"""Interactions of the shape of MovieLens-1M, a ckd corpus of them, and one teacher's labels in the store's format.

Nothing here decides how fast a step is but the shape: 6,040 users, 3,416 items, about a million interactions, lengths
and popularities spread about as there. What follows what is chance.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from ckd.stages.batching import flat_index, training_windows
from ckd.stages.precompute.search import search
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import HELD_OUT, Corpus, Positions, write_corpus
from ckd.storage.keys import Address
from ckd.storage.labels import LabelBlock, write_part
from ckd.storage.rounding import round_float16
from ckd.storage.store import Store
from ckd.storage.vectors import write_vectors

USERS, ITEMS, INTERACTIONS = 6_040, 3_416, 1_000_000
MAX_LENGTH = 100
K, STATE = 100, 64
_SHORTEST, _LONGEST = 20, 2_300
_ROWS = 16_384

Int64s = npt.NDArray[np.int64]


def corpus_artifact(store: Store) -> Artifact:
    """Return the corpus; it is made where the store has none."""
    address = Address("corpus", {"users": USERS, "items": ITEMS, "interactions": INTERACTIONS})
    with store.draft(address) as draft:
        if (present := store.find(address)) is not None:
            return present
        lists = _sequences()
        trained = np.concatenate([sequence[:-2] for sequence in lists])
        names = {name: [""] * ITEMS for name in ("title", "brand", "categories", "description")}
        items = {
            "item": pa.array(np.arange(ITEMS, dtype=np.int32)),
            "item_id": [f"i{code:04}" for code in range(ITEMS)],
            **names,
            "popularity": pa.array(np.bincount(trained, minlength=ITEMS).astype(np.int32)),
        }
        users = {
            "user_id": [f"u{user:04}" for user in range(USERS)],
            "items": pa.array(lists, pa.list_(pa.int32())),
            "timestamps": pa.array([np.arange(len(sequence)) for sequence in lists], pa.list_(pa.int64())),
        }
        write_corpus(draft, pa.table(items), pa.table(users))
        return draft.commit()


def labels_in(store: Store, corpus: Corpus) -> Artifact:
    """Return labels of every position that is trained on, k = 100, states of 64; made where the store has none.

    The teacher is random: vectors and states are normal, so that a score has a standard deviation of 2.
    """
    address = Address(
        "labels", {"corpus": corpus.key, "k": K, "state": STATE}, (("teacher", "random"), ("domain", "d"))
    )
    with store.draft(address) as draft:
        if (present := store.find(address)) is not None:
            return present
        draw = np.random.default_rng(1)
        vectors = draw.normal(0, 1, (corpus.n_items, STATE)).astype(np.float32)
        trained = _trained(corpus)
        for number, rows in enumerate(np.array_split(trained, max(1, len(trained) // _ROWS))):
            state = round_float16(draw.normal(0, 2 / np.sqrt(STATE), (len(rows), STATE)))
            write_part(draft, number, _block(corpus.positions(), rows, state, vectors), corpus, {})
        write_vectors(draft, vectors)
        return draft.commit()


def write_sequences(corpus: Corpus, path: Path) -> None:
    """Write a corpus for who does not read the store.

    ``user`` and ``item`` are what is trained on, everything but each user's last two items; ``sequence`` and
    ``offsets`` are the whole sequences as in :class:`Corpus`.
    """
    user = np.repeat(np.arange(corpus.n_users), corpus.lengths - HELD_OUT)
    item = corpus.sequence[flat_index(corpus.offsets[:-1], corpus.lengths - HELD_OUT)].astype(np.int64)
    whole = {"sequence": corpus.sequence, "offsets": corpus.offsets}
    np.savez(path, user=user, item=item, n_users=corpus.n_users, n_items=corpus.n_items, **whole)


def _sequences() -> list[npt.NDArray[np.int32]]:
    draw = np.random.default_rng(0)
    # MovieLens-1M: median length 96 of at least 20; median item 124 times, best 3,428 times.
    lengths = _SHORTEST + draw.lognormal(np.log(96 - _SHORTEST), 1.2, USERS)
    popularity = np.minimum(draw.lognormal(np.log(124), 1.4, ITEMS), 3_428)
    lengths = np.clip(lengths * INTERACTIONS / lengths.sum(), _SHORTEST, _LONGEST).astype(np.int64)
    items = draw.choice(ITEMS, int(lengths.sum()), p=popularity / popularity.sum()).astype(np.int32)
    return np.split(items, np.cumsum(lengths)[:-1])


def _trained(corpus: Corpus) -> Int64s:
    cut = training_windows(corpus, MAX_LENGTH)
    return flat_index(corpus.position_offsets[cut.user] + cut.position - 1, cut.length)


def _block(at: Positions, rows: Int64s, state: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32]) -> LabelBlock:
    target = torch.from_numpy(at.target[rows].astype(np.int64))
    found = search(torch.from_numpy(state), torch.from_numpy(vectors), target, K)
    logprobs = found.scores - found.logsumexp.unsqueeze(1)
    return LabelBlock(
        user=at.user[rows],
        position=at.position[rows],
        split=at.split[rows],
        target=at.target[rows],
        items=found.items.numpy(),
        logprobs=round_float16(logprobs.numpy()),
        logsumexp=found.logsumexp.float().numpy(),
        kept_mass=logprobs.exp().sum(1).clamp(max=1).float().numpy(),
        target_logprob=(found.target_score - found.logsumexp).float().numpy(),
        target_rank=found.target_rank.numpy(),
        entropy=found.entropy.float().numpy(),
        state=state,
    )
