"""Labels of one (teacher, domain), shard by shard, resumable."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ckd.stages.precompute.search import search
from ckd.stages.precompute.settings import LabelSettings
from ckd.stages.teachers.contract import Teacher
from ckd.storage.artifact import Artifact, Draft, Receipt, Store
from ckd.storage.corpus import SPLITS, Corpus, Positions
from ckd.storage.keys import Address
from ckd.storage.labels import ROUNDINGS, LabelBlock, part_name, round_float16, write_part
from ckd.storage.progress import expect_shards
from ckd.storage.vectors import write_vectors

Advance = Callable[[int, int], None]
"""Called after each shard with its rows and bytes."""


@dataclass(frozen=True)
class Shard:
    """A fixed range of users: number, first user, last user (exclusive)."""

    number: int
    first: int
    last: int


def shards(corpus: Corpus, settings: LabelSettings) -> list[Shard]:
    """Return the cut of a corpus into shards; it depends on the corpus and ``shard_rows`` only."""
    return [Shard(n, first, last) for n, (first, last) in enumerate(corpus.ranges(settings.shard_rows))]


def finished(draft: Draft, shard: Shard) -> Receipt | None:
    """Return the receipt of a shard left by an interrupted run, if it is whole and covers the same users."""
    receipt = draft.receipt(part_name(shard.number))
    return receipt if receipt is not None and covers(receipt, shard) else None


def covers(receipt: Receipt, shard: Shard) -> bool:
    """Return whether a receipt is of the same users; another ``shard_rows`` cuts elsewhere."""
    return (receipt.facts.get("first_user"), receipt.facts.get("last_user")) == (shard.first, shard.last)


def label_corpus(
    store: Store,
    address: Address,
    corpus: Corpus,
    settings: LabelSettings,
    open_teacher: Callable[[], Teacher],
    device: torch.device,
    advance: Advance = lambda _rows, _bytes: None,
    reuse: Callable[[int], None] = lambda _rows: None,
    measure: Callable[[], Mapping[str, Any]] = dict,
) -> Artifact:
    """Return the labels of one teacher for one domain: from the store, resumed, or computed.

    Args:
        store: where the artifact is or goes.
        address: its key; everything that determines the labels.
        corpus: the domain.
        settings: what is stored.
        open_teacher: gives the frozen teacher; called only if there is something to compute.
        device: where the search runs.
        advance: progress.
        reuse: called with the rows of each shard that an interrupted run had finished.
        measure: facts about the teacher to remember in the manifest (parameters, serving time).
    """
    with store.draft(address, resume=True) as draft:
        if (present := store.find(address)) is not None:
            return present
        todo = shards(corpus, settings)
        done = {shard: receipt for shard in todo if (receipt := finished(draft, shard)) is not None}
        draft.keep_only([part_name(shard.number) for shard in done])
        expect_shards(draft, len(todo))
        teacher = open_teacher()
        vectors = teacher.item_vectors()
        stored = vectors.cpu().numpy().astype(np.float32)
        # The search uses the vectors as stored, so that anyone can repeat its scores from the shards.
        vectors = torch.from_numpy(stored).to(device, torch.float64)
        write_vectors(draft, stored)
        for receipt in done.values():
            reuse(receipt.rows)
        earlier = device_seconds = sum(receipt.facts["device_seconds"] for receipt in done.values())
        for shard in todo:
            if shard in done:
                continue
            started = time.perf_counter()
            block = label_shard(teacher, vectors, corpus, shard, settings)
            seconds = round(time.perf_counter() - started, 3)
            facts = {"first_user": shard.first, "last_user": shard.last, "device_seconds": seconds}
            receipt = write_part(draft, shard.number, block, corpus, facts)
            device_seconds += seconds
            advance(receipt.rows, receipt.bytes)
        return draft.commit(measure(), device_seconds, earlier)


def labelled_positions(corpus: Corpus, settings: LabelSettings) -> int:
    """Return how many positions of a corpus the settings ask for."""
    return int(_kept(corpus.positions(), settings).sum())


def _kept(positions: Positions, settings: LabelSettings) -> np.ndarray:
    return np.isin(positions.split, [SPLITS.index(split) for split in settings.splits])


def label_shard(
    teacher: Teacher, vectors: torch.Tensor, corpus: Corpus, shard: Shard, settings: LabelSettings
) -> LabelBlock:
    """Return the labels of a shard's positions, in order, as they are stored (rounded)."""
    positions = corpus.positions(shard.first, shard.last)
    queries = teacher.queries(shard.first, shard.last, settings.batch_size).cpu().numpy()
    kept = _kept(positions, settings)
    positions = Positions(*(column[kept] for column in vars(positions).values()))
    # Rounded before it is scored, so that `state . vector` gives back exactly what the labels were made from.
    state = round_float16(queries[kept])
    query = torch.from_numpy(state).to(vectors.device, torch.float64)
    target = torch.from_numpy(positions.target.astype(np.int64)).to(vectors.device)
    found = search(query, vectors, target, min(settings.top_k, corpus.n_items))
    logprobs = found.scores.double() - found.logsumexp.unsqueeze(1)
    return LabelBlock(
        user=positions.user,
        position=positions.position,
        split=positions.split,
        target=positions.target,
        items=found.items.cpu().numpy(),
        logprobs=ROUNDINGS[settings.precision](logprobs.cpu().numpy()),
        logsumexp=_float32(found.logsumexp),
        kept_mass=_float32(logprobs.exp().sum(1).clamp(max=1.0)),
        target_logprob=_float32(found.target_score.double() - found.logsumexp),
        target_rank=found.target_rank.cpu().numpy(),
        entropy=_float32(found.entropy.clamp(min=0.0)),
        state=state if settings.state else None,
    )


def _float32(values: torch.Tensor) -> np.ndarray:
    array: np.ndarray = values.cpu().numpy().astype(np.float32)
    return array
