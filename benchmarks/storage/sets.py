"""Labels to measure on: those of a store, as exact as the teacher gave them, or synthetic ones."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from ckd.pipeline.config.load import load_configuration
from ckd.stages.precompute.search import search
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus, read_corpus
from ckd.storage.labels import LabelBlock, read_labels
from ckd.storage.store import Store
from ckd.storage.vectors import read_vectors

ROWS = 16_384
"""Positions per shard, as `labels.shard_rows` has them by default."""
_AT_ONCE = 2_048


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of one teacher for one domain, with k items each.

    Attributes:
        name: teacher and domain.
        corpus: that they are of.
        block: with log-probabilities in float64, not rounded, and without states.
    """

    name: str
    corpus: Corpus
    block: LabelBlock

    def shards(self, logprobs: npt.NDArray[np.float32]) -> Iterator[LabelBlock]:
        """Yield the labels with other log-probabilities, [N, k], shard by shard."""
        block = replace(self.block, logprobs=logprobs)
        for first in range(0, len(block), ROWS):
            yield block.take(np.arange(first, min(first + ROWS, len(block))))


def of_store(file: Path, overrides: tuple[str, ...], k: int) -> list[Labels]:
    """Return the labels in the store of a configuration that have states and at least k items, whatever their rounding.

    What was rounded is computed again from the states and the item vectors, which are what the labels were made from.
    Of several of one teacher and domain the one with the most items is taken.
    """
    configuration = load_configuration(file, overrides)
    store = Store(configuration.store)
    chosen: dict[tuple[str, str], Artifact] = {}
    for artifact in sorted(store.all("labels"), key=lambda found: found.inputs["top_k"]):
        teacher, domain = (part.name.split("=")[1] for part in (artifact.path.parents[1], artifact.path.parent))
        if domain in configuration.domains and artifact.inputs["top_k"] >= k and artifact.inputs["state"]:
            chosen[teacher, domain] = artifact
    found = []
    for (teacher, domain), artifact in sorted(chosen.items()):
        corpus = read_corpus(store.with_key("corpus", artifact.inputs["corpus"]))
        found.append(Labels(f"{teacher}, {domain}", corpus, _exact(artifact, corpus, k)))
    return found


def synthetic(n_items: int, k: int, rows: int = 3 * ROWS) -> Labels:
    """Return labels of a random teacher: vectors and states are normal, a score has a standard deviation of 2."""
    draw, width = np.random.default_rng(0), 64
    users, length = rows // 8, 9
    offsets = np.arange(users + 1, dtype=np.int64) * length
    sequence = draw.integers(0, n_items, users * length).astype(np.int32)
    items = pa.table({"item": np.arange(n_items, dtype=np.int32), "item_id": [f"i{code}" for code in range(n_items)]})
    corpus = Corpus("synthetic", items, pa.array([f"u{user:06}" for user in range(users)]), offsets, sequence)
    state = draw.normal(0, 2 / np.sqrt(width), (corpus.n_positions, width))
    vectors = torch.from_numpy(draw.normal(size=(n_items, width)))
    at = corpus.positions()
    found = search(torch.from_numpy(state), vectors, torch.from_numpy(at.target.astype(np.int64)), k)
    logprobs = (found.scores.double() - found.logsumexp.unsqueeze(1)).numpy()
    block = LabelBlock(
        user=at.user,
        position=at.position,
        split=at.split,
        target=at.target,
        items=found.items.numpy(),
        logprobs=logprobs,
        logsumexp=found.logsumexp.float().numpy(),
        kept_mass=np.exp(logprobs).sum(1).astype(np.float32),
        target_logprob=(found.target_score.double() - found.logsumexp).float().numpy(),
        target_rank=found.target_rank.numpy(),
        entropy=found.entropy.float().numpy(),
        state=None,
    )
    return Labels(f"random, {n_items:,} items", corpus, block)


def _exact(artifact: Artifact, corpus: Corpus, k: int) -> LabelBlock:
    block = read_labels(artifact, corpus)
    items = np.ascontiguousarray(block.items[:, :k])
    vectors = torch.from_numpy(read_vectors(artifact)).double()
    logprobs = np.empty(items.shape)
    for first in range(0, len(block), _AT_ONCE):
        rows = slice(first, first + _AT_ONCE)
        # Rounded as the search rounds them, so that ties are ties.
        scores = (torch.from_numpy(block.state[rows]).double() @ vectors.T).float().double()
        kept = scores.gather(1, torch.from_numpy(items[rows].astype(np.int64)))
        logprobs[rows] = (kept - scores.logsumexp(1, keepdim=True)).numpy()
    return replace(block, items=items, logprobs=logprobs, state=None)
