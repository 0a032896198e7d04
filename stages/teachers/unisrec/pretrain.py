"""Contrastive pre-training of UniSRec over mixed source domains (arXiv 2206.05941, section 2.3).

Where it leaves the authors' code:
- one causal pass trains every position of a sequence, where theirs feeds one row per prefix;
- the negatives of a position are the distinct target items of its batch, where their same-target rows add a constant
  to the denominator;
- the augmented copy of a sequence always drops items, where theirs drops words of the item texts in one of ten cases;
- dropping keeps the first item and closes the gaps, where theirs may drop any item but leaves one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ckd.stages.batching import at, flat_index, length_buckets, padded, training_windows
from ckd.stages.teachers.contract import DomainData, Job
from ckd.stages.teachers.loop import Epoch, run_epochs
from ckd.stages.teachers.unisrec import PretrainSettings
from ckd.stages.teachers.unisrec.network import UniSRec


@dataclass(frozen=True)
class Mixture:
    """Source domains as one: item codes of later domains are shifted behind those of earlier ones.

    Attributes:
        text: float32 [n_items of all, p].
        sequence: int32, all items of all sequences.
        start, length: int64 [S], inputs of each sequence, see ``TrainingWindows``.
    """

    text: Tensor
    sequence: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]


def mix(sources: Sequence[DomainData], max_length: int, device: torch.device) -> Mixture:
    """Join source domains; all interactions are used, for nothing is evaluated on them."""
    sequences, starts, lengths = [], [], []
    items = interactions = 0
    texts = []
    for source in sources:
        corpus = source.corpus
        if source.text is None:
            raise ValueError("a UniSRec is trained on item text vectors")
        texts.append(source.text.vectors)
        cut = training_windows(corpus, max_length, held_out=0)
        sequences.append(corpus.sequence + np.int32(items))
        starts.append(cut.start + interactions)
        lengths.append(cut.length)
        items += corpus.n_items
        interactions += len(corpus.sequence)
    text = torch.from_numpy(np.concatenate(texts)).to(device)
    return Mixture(text, np.concatenate(sequences), np.concatenate(starts), np.concatenate(lengths))


def pretrain(job: Job, sources: Sequence[DomainData]) -> tuple[UniSRec, list[Epoch]]:
    """Train a UniSRec from scratch; return it with one row of the curve per epoch."""
    settings: PretrainSettings = job.settings
    torch.manual_seed(settings.seed)
    mixture = mix(sources, settings.network.max_length, job.device)
    model = UniSRec(settings.network, mixture.text.shape[1]).to(job.device)
    curve = run_epochs(
        job,
        model,
        torch.optim.Adam(model.parameters(), lr=settings.learning_rate),
        lambda _, draw: length_buckets(mixture.length, settings.batch_size, draw),
        lambda rows, draw: contrast(model, mixture, rows, settings, draw),
        seed=settings.seed,
        epochs=settings.epochs,
        precision=settings.precision,
    )
    return model, curve


def contrast(
    model: UniSRec,
    mixture: Mixture,
    rows: npt.NDArray[np.int64],
    settings: PretrainSettings,
    draw: np.random.Generator,
) -> Tensor:
    """Return the loss of one batch: sequence-item plus lambda times sequence-sequence contrast (equation 10)."""
    start, length = mixture.start[rows], mixture.length[rows]
    inputs, real = padded(mixture.sequence, start, length)
    mask = torch.from_numpy(real)
    targets = torch.from_numpy(mixture.sequence[flat_index(start + 1, length)].astype(np.int64))
    codes, local = torch.unique(torch.cat([inputs[mask], targets]), return_inverse=True)
    device = mixture.text.device
    table = model.item_table(mixture.text[codes.to(device)])
    places = torch.zeros_like(inputs)
    places[mask] = local[: int(mask.sum())]
    encoded = model.encode(table[places.to(device)])
    candidates, wanted = torch.unique(local[int(mask.sum()) :], return_inverse=True)
    loss = sequence_item_loss(
        encoded[mask.to(device)], table[candidates.to(device)], wanted.to(device), settings.network.temperature
    )
    if settings.sequence_weight == 0:
        return loss
    dropped, dropped_length = drop_items(places, length, settings.item_drop, draw)
    augmented = model.encode(table[dropped.to(device)])
    last = mixture.sequence[start + length]
    return loss + settings.sequence_weight * sequence_sequence_loss(
        at(encoded, torch.from_numpy(length - 1)),
        at(augmented, torch.from_numpy(dropped_length - 1)),
        last,
        settings.network.temperature,
    )


def sequence_item_loss(states: Tensor, items: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of cosine / tau over the batch's distinct target items (equation 8).

    Args:
        states: [N, d] sequence vectors.
        items: [U, d] vectors of the distinct targets.
        target: int64 [N], row of ``items`` that follows each state.
        temperature: tau.
    """
    logits = F.normalize(states, dim=-1) @ F.normalize(items, dim=-1).T / temperature
    return F.cross_entropy(logits, target)


def sequence_sequence_loss(
    states: Tensor, augmented: Tensor, target: npt.NDArray[np.int32], temperature: float
) -> Tensor:
    """Cross-entropy of each sequence with its own augmented copy against the other copies of the batch (equation 9).

    Copies of sequences with the same target are not negatives.
    """
    logits = F.normalize(states, dim=-1) @ F.normalize(augmented, dim=-1).T / temperature
    same = torch.from_numpy(target[:, None] == target[None, :]).to(logits.device)
    same.fill_diagonal_(False)
    return F.cross_entropy(logits.masked_fill(same, -torch.inf), torch.arange(len(logits), device=logits.device))


def drop_items(
    codes: Tensor, length: npt.NDArray[np.int64], share: float, draw: np.random.Generator
) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """Drop each item but the first with probability ``share``; return the rest, closed up, and their lengths."""
    index = np.arange(codes.shape[1])
    keep = (draw.random(codes.shape) >= share) & (index < length[:, None])
    keep[:, 0] = True
    order = np.argsort(~keep, axis=1, kind="stable")
    return codes.gather(1, torch.from_numpy(order)), keep.sum(1)
