"""Labels of one (teacher, domain), shard by shard, resumable."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from ckd.stages.precompute.lists import ListLabeller
from ckd.stages.precompute.search import search
from ckd.stages.precompute.settings import LabelSettings
from ckd.stages.precompute.shards import Shard, asked, selected, shards
from ckd.stages.teachers.contract import RankedLists, Teacher
from ckd.storage.artifact import Artifact, Draft, Receipt, Store
from ckd.storage.corpus import Corpus
from ckd.storage.keys import Address
from ckd.storage.labels import ROUNDINGS, LabelBlock, part_name, round_float16, write_part
from ckd.storage.progress import expect_shards
from ckd.storage.vectors import write_vectors

Advance = Callable[[int, int], None]
"""Called after each shard with its rows and bytes."""
Measure = Callable[[], Mapping[str, Any]]
"""Gives facts about the teacher to remember in the manifest: parameters, serving time."""


class Labeller(Protocol):
    """A teacher that can be asked for the labels of a shard."""

    @property
    def vectors(self) -> npt.NDArray[np.float32] | None:
        """Item vectors [n_items, d] to store beside the labels, or None."""

    def block(self, shard: Shard) -> LabelBlock:
        """Return the labels of a shard's positions, in order, as they are stored (rounded)."""

    def facts(self) -> Mapping[str, Any]:
        """Return what the manifest is to remember beside the labels."""


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
    open_teacher: Callable[[], Teacher | RankedLists],
    device: torch.device,
    advance: Advance = lambda _rows, _bytes: None,
    reuse: Callable[[int], None] = lambda _rows: None,
    measure: Measure = dict,
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
        measure: what serving the teacher costs; not asked of ranked lists, which nothing serves.
    """
    with store.draft(address, resume=True) as draft:
        if (present := store.find(address)) is not None:
            return present
        todo = shards(corpus, settings)
        done = {shard: receipt for shard in todo if (receipt := finished(draft, shard)) is not None}
        draft.keep_only([part_name(shard.number) for shard in done])
        expect_shards(draft, len(todo))
        labeller = _labeller(open_teacher(), corpus, settings, device, measure)
        if labeller.vectors is not None:
            write_vectors(draft, labeller.vectors)
        for receipt in done.values():
            reuse(receipt.rows)
        earlier = device_seconds = sum(receipt.facts["device_seconds"] for receipt in done.values())
        for shard in todo:
            if shard in done:
                continue
            started = time.perf_counter()
            block = labeller.block(shard)
            seconds = round(time.perf_counter() - started, 3)
            facts = {"first_user": shard.first, "last_user": shard.last, "device_seconds": seconds}
            receipt = write_part(draft, shard.number, block, corpus, facts)
            device_seconds += seconds
            advance(receipt.rows, receipt.bytes)
        return draft.commit(labeller.facts(), device_seconds, earlier)


def _labeller(
    teacher: Teacher | RankedLists, corpus: Corpus, settings: LabelSettings, device: torch.device, measure: Measure
) -> Labeller:
    if isinstance(teacher, RankedLists):
        return ListLabeller(teacher, corpus, settings)
    return DualEncoderLabeller(teacher, corpus, settings, device, measure)


class DualEncoderLabeller:
    """Labels by an exact search over the item vectors."""

    def __init__(
        self, teacher: Teacher, corpus: Corpus, settings: LabelSettings, device: torch.device, measure: Measure
    ) -> None:
        self._teacher, self._corpus, self._settings = teacher, corpus, settings
        self._measure = measure
        self.vectors: npt.NDArray[np.float32] = teacher.item_vectors().cpu().numpy().astype(np.float32)
        # The search uses the vectors as stored, so that anyone can repeat its scores from the shards.
        self._searched = torch.from_numpy(self.vectors).to(device, torch.float64)

    def block(self, shard: Shard) -> LabelBlock:
        """Return the labels of a shard."""
        return label_shard(self._teacher, self._searched, self._corpus, shard, self._settings)

    def facts(self) -> Mapping[str, Any]:
        """Return what was measured of the teacher."""
        return self._measure()


def label_shard(
    teacher: Teacher, vectors: torch.Tensor, corpus: Corpus, shard: Shard, settings: LabelSettings
) -> LabelBlock:
    """Return the labels of a shard's positions, in order, as they are stored (rounded)."""
    positions = corpus.positions(shard.first, shard.last)
    queries = teacher.queries(shard.first, shard.last, settings.batch_size).cpu().numpy()
    kept = asked(positions, settings)
    positions = selected(positions, kept)
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
