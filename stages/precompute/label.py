"""Labels of one (teacher, domain), shard by shard, resumable."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from ckd.stages.precompute.lists import ListLabeller
from ckd.stages.precompute.machine import MADE_ON, made_on
from ckd.stages.precompute.search import search
from ckd.stages.precompute.settings import LabelSettings
from ckd.stages.precompute.shards import Shard, asked, cut_of, selected, shards
from ckd.stages.teachers.contract import RankedLists, Teacher
from ckd.storage.artifact import Artifact, Receipt
from ckd.storage.corpus import SPLITS, Corpus
from ckd.storage.draft import Draft
from ckd.storage.errors import UserError
from ckd.storage.folds import all_folds
from ckd.storage.keys import Address
from ckd.storage.labels import FOLDS, LabelBlock, in_order, part_name, write_part
from ckd.storage.progress import expect_shards
from ckd.storage.rounding import ROUNDINGS, round_float16
from ckd.storage.store import Store
from ckd.storage.vectors import write_vectors

Advance = Callable[[int, int], None]
"""Called after each shard with its rows and bytes."""
Measure = Callable[[], Mapping[str, Any]]
"""Gives facts about the teacher to remember in the manifest: parameters, serving time."""

_TRAIN = SPLITS[0]


class Labeller(Protocol):
    """A teacher that can be asked for the labels of a shard."""

    @property
    def vectors(self) -> Sequence[npt.NDArray[np.float32]]:
        """Item vectors [n_items, d] to store beside the labels: none, one, or one and then that of each fold."""

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
    open_folds: Sequence[Callable[[Corpus], Teacher | RankedLists]] = (),
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
        open_folds: for labels out of fold, what gives the teacher of each fold, over a corpus of the fold's users. They
            are all open at once; the memory is that of so many teachers.

    Raises:
        UserError: the teacher does not fit the domain or the settings.
    """
    with store.draft(address, resume=True) as draft:
        if (present := store.find(address)) is not None:
            return present
        todo = _cut(draft, corpus, settings)
        done = {shard: receipt for shard in todo if (receipt := finished(draft, shard)) is not None}
        draft.keep_only([part_name(shard.number) for shard in done])
        expect_shards(draft, len(todo))
        labeller = open_labeller(corpus, settings, open_teacher, device, measure, open_folds)
        for number, vectors in enumerate(labeller.vectors):
            write_vectors(draft, vectors, number)
        for receipt in done.values():
            reuse(receipt.rows)
        earlier = device_seconds = sum(receipt.facts["device_seconds"] for receipt in done.values())
        for shard in todo:
            if shard in done:
                continue
            started = time.perf_counter()
            block = labeller.block(shard)
            seconds = round(time.perf_counter() - started, 3)
            facts = {
                "first_user": shard.first,
                "last_user": shard.last,
                "device_seconds": seconds,
                MADE_ON: made_on(device),
            }
            receipt = write_part(draft, shard.number, block, corpus, facts)
            device_seconds += seconds
            advance(receipt.rows, receipt.bytes)
        return draft.commit(labeller.facts(), device_seconds, earlier)


def _cut(draft: Draft, corpus: Corpus, settings: LabelSettings) -> list[Shard]:
    """Return the shards to write: those that there were, where damaged labels are mended, to the same files."""
    former = draft.former()
    if former is None:
        return shards(corpus, settings)
    return cut_of({name: Receipt(**record) for name, record in former["files"].items() if name.startswith("part-")})


def open_labeller(
    corpus: Corpus,
    settings: LabelSettings,
    open_teacher: Callable[[], Teacher | RankedLists],
    device: torch.device,
    measure: Measure = dict,
    open_folds: Sequence[Callable[[Corpus], Teacher | RankedLists]] = (),
) -> Labeller:
    """Return the opened teacher, or the teachers of folds, that can be asked for labels.

    The arguments are those of :func:`label_corpus`.

    Raises:
        UserError: the teacher does not fit the domain or the settings.
    """
    if open_folds:
        return _fold_labeller(open_teacher(), open_folds, corpus, settings, device, measure)
    return _labeller(open_teacher(), corpus, settings, device, measure)


def _labeller(
    teacher: Teacher | RankedLists, corpus: Corpus, settings: LabelSettings, device: torch.device, measure: Measure
) -> Labeller:
    if isinstance(teacher, RankedLists):
        return ListLabeller(teacher, corpus, settings)
    return DualEncoderLabeller(teacher, corpus, settings, device, measure)


def _fold_labeller(
    whole: Teacher | RankedLists,
    open_folds: Sequence[Callable[[Corpus], Teacher | RankedLists]],
    corpus: Corpus,
    settings: LabelSettings,
    device: torch.device,
    measure: Measure,
) -> "FoldLabeller":
    def labeller(teacher: Teacher | RankedLists, users: Corpus, splits: Sequence[str]) -> DualEncoderLabeller:
        if isinstance(teacher, RankedLists):
            raise UserError(f"{teacher.source}: ranked lists are not given out of fold; set the teacher's folds to 0")
        return DualEncoderLabeller(teacher, users, settings.model_copy(update={"splits": splits}), device, measure)

    held_out = tuple(split for split in settings.splits if split != _TRAIN)
    insides = [corpus.inside(fold) for fold in all_folds(len(open_folds))]
    folds = [labeller(opened(inside), inside, (_TRAIN,)) for opened, inside in zip(open_folds, insides, strict=True)]
    return FoldLabeller(labeller(whole, corpus, held_out), folds, corpus)


class FoldLabeller:
    """Labels of training positions out of fold, each from the teacher of its user's fold, and of all others.

    Its parts are labellers of one teacher each: the ``whole`` one labels the held-out positions of all users, that of
    a fold the training positions of the fold's users, numbered as :meth:`Corpus.inside` has them.
    """

    def __init__(self, whole: "DualEncoderLabeller", folds: Sequence["DualEncoderLabeller"], corpus: Corpus) -> None:
        self._whole, self._folds = whole, folds
        fold_of_user = corpus.folds(len(folds))
        self._users = [np.flatnonzero(fold_of_user == fold.number) for fold in all_folds(len(folds))]
        self.vectors = tuple(vectors for each in (whole, *folds) for vectors in each.vectors)

    def block(self, shard: Shard) -> LabelBlock:
        """Return the labels of a shard."""
        blocks = [self._whole.block(shard)] if self._whole.labels_anything else []
        for labeller, users in zip(self._folds, self._users, strict=True):
            first, last = np.searchsorted(users, [shard.first, shard.last]).tolist()
            if first < last:
                block = labeller.block(Shard(shard.number, first, last))
                blocks.append(replace(block, user=users[block.user].astype(np.int32)))
        return in_order(blocks)

    def facts(self) -> Mapping[str, Any]:
        """Return what was measured of the teacher of all users, and how many folds there are and users in each."""
        return {**self._whole.facts(), FOLDS: len(self._folds), "users_of_folds": [len(users) for users in self._users]}


class DualEncoderLabeller:
    """Labels by an exact search over the item vectors."""

    def __init__(
        self, teacher: Teacher, corpus: Corpus, settings: LabelSettings, device: torch.device, measure: Measure
    ) -> None:
        self._teacher, self._corpus, self._settings = teacher, corpus, settings
        self._measure = measure
        vectors: npt.NDArray[np.float32] = teacher.item_vectors().cpu().numpy().astype(np.float32)
        self.vectors = (vectors,)
        # The search uses the vectors as stored, so that anyone can repeat its scores from the shards.
        self._searched = torch.from_numpy(vectors).to(device, torch.float64)

    @property
    def labels_anything(self) -> bool:
        """Whether any split is labelled."""
        return bool(self._settings.splits)

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
