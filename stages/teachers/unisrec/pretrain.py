"""Contrastive pre-training of UniSRec over mixed source domains (arXiv 2206.05941, section 2.3).

The losses and the augmentation are those of the authors' code, and a row of a batch is what it is there: a prefix of a
sequence with the item that follows it. One causal pass over a sequence gives all its rows, where their code encodes
each prefix by itself. Where this leaves their code:

- a batch holds all prefixes of its sequences, where theirs are drawn from those of all sequences;
- the adaptor runs once per distinct item of a batch, so all places of an item share one draw of its dropout and noise;
- one copy of a sequence is augmented, not one of each prefix. A prefix whose last item survives in it finds there
  exactly a copy of itself as their rule would draw it; with dropped items, only such rows enter the sequence-sequence
  contrast.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ckd.stages.batching import at, encoded, flat_index, padded, random_batches, real_positions, training_windows
from ckd.stages.teachers.contract import DomainData, Job, TextVectors
from ckd.stages.teachers.held_out import hits, split_sequences
from ckd.stages.teachers.loop import Epoch, run_epochs
from ckd.stages.teachers.unisrec import PretrainSettings
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.storage.errors import UserError

_LOGITS = 1 << 24
"""Logits that a loss holds at a time; more are computed in parts, and again in the backward pass."""


@dataclass(frozen=True)
class Mixture:
    """Source domains as one: item codes of later domains are shifted behind those of earlier ones.

    Attributes:
        text: float32 [n_items of all, p].
        augmented: float32 [n_items of all, p], of the texts with words dropped, or None.
        sequence: int32, all items of all sequences.
        start, length: int64 [S], inputs of each sequence, see ``TrainingWindows``.
    """

    text: Tensor
    augmented: Tensor | None
    sequence: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]


def mix(sources: Sequence[DomainData], max_length: int, device: torch.device) -> Mixture:
    """Join source domains; all interactions are used, for nothing is evaluated on them."""
    sequences, starts, lengths = [], [], []
    items = interactions = 0
    for source in sources:
        corpus = source.corpus
        if source.text is None:
            raise ValueError("a UniSRec is trained on item text vectors")
        cut = training_windows(corpus, max_length, held_out=0)
        sequences.append(corpus.sequence + np.int32(items))
        starts.append(cut.start + interactions)
        lengths.append(cut.length)
        items += corpus.n_items
        interactions += len(corpus.sequence)
    _check_alike([text for source in sources for text in (source.text, source.augmented) if text is not None])
    augmented = [source.augmented.vectors for source in sources if source.augmented is not None]
    return Mixture(
        _joined([source.text.vectors for source in sources if source.text is not None], device),
        _joined(augmented, device) if len(augmented) == len(sources) else None,
        np.concatenate(sequences),
        np.concatenate(starts),
        np.concatenate(lengths),
    )


def pretrain(job: Job, sources: Sequence[DomainData]) -> tuple[UniSRec, list[Epoch]]:
    """Train a UniSRec from scratch; return it with one row of the curve per epoch.

    Raises:
        UserError: no sequence is long enough to train on, or some batches are to drop words and a source has no text
            vectors for that.
    """
    settings: PretrainSettings = job.settings
    torch.manual_seed(settings.seed)
    mixture = mix(sources, settings.network.max_length, job.device)
    if mixture.augmented is None and settings.drops_words():
        raise UserError(
            f"pretrain.item_drop_coefficient is {settings.item_drop_coefficient}, so some batches drop words, but not "
            "every source has text vectors with dropped words; set it to 1"
        )
    held_out, trained = split_sequences(len(mixture.start), settings.held_out, settings.seed)
    model = UniSRec(settings.network, mixture.text.shape[1]).to(job.device)
    curve = run_epochs(
        job,
        model,
        torch.optim.Adam(model.parameters(), lr=settings.learning_rate),
        lambda _, draw: [trained[rows] for rows in random_batches(len(trained), settings.batch_size, draw)],
        lambda rows, draw: contrast(model, mixture, rows, settings, draw),
        seed=settings.seed,
        epochs=settings.epochs,
        validate=(lambda: {"accuracy": accuracy(model, mixture, held_out)}) if len(held_out) else None,
        watched="accuracy",
        patience=settings.patience,
        precision=settings.precision,
    )
    return model, curve


@torch.inference_mode()
def accuracy(model: UniSRec, mixture: Mixture, held_out: npt.NDArray[np.int64]) -> float:
    """Return how often the last item of a held-out sequence scores best among the last items of all of them."""
    model.eval()
    start, length = mixture.start[held_out], mixture.length[held_out]
    inputs = padded(mixture.sequence, start, length)
    device = mixture.text.device
    states = at(model.encode(model.item_table(mixture.text[inputs.to(device)])), torch.from_numpy(length - 1))
    own = torch.from_numpy(mixture.sequence[start + length].astype(np.int64)).to(device)
    items = model.item_table(mixture.text[own])
    return hits(F.normalize(states, dim=-1) @ F.normalize(items, dim=-1).T, own)


def _check_alike(texts: Sequence[TextVectors]) -> None:
    made = {(text.vectors.shape[1], text.encoder) for text in texts}
    if len(made) > 1:
        words = sorted(f"{width} dimensions of {encoder or 'an unknown encoder'}" for width, encoder in made)
        raise UserError(
            f"the sources' text vectors are not of one kind ({'; '.join(words)}); let one encoder make those of all "
            "sources, or bring text_vectors of all of them"
        )


def _joined(vectors: Sequence[npt.NDArray[np.float32]], device: torch.device) -> Tensor:
    return torch.from_numpy(np.concatenate(vectors)).to(device)


def contrast(
    model: UniSRec,
    mixture: Mixture,
    rows: npt.NDArray[np.int64],
    settings: PretrainSettings,
    draw: np.random.Generator,
) -> Tensor:
    """Return the loss of one batch: sequence-item plus lambda times sequence-sequence contrast (equation 10).

    Args:
        model: the network, in training mode.
        mixture: the sources.
        rows: int64 [B], sequences of the batch; each of their positions is a row of the contrasts.
        settings: lambda, temperature and the augmentation.
        draw: of the augmentation.
    """
    start, length = mixture.start[rows], mixture.length[rows]
    inputs, real = padded(mixture.sequence, start, length), real_positions(length)
    mask, device = torch.from_numpy(real), mixture.text.device
    targets = torch.from_numpy(mixture.sequence[flat_index(start + 1, length)].astype(np.int64))
    codes, local = torch.unique(torch.cat([inputs[mask], targets]), return_inverse=True)
    table = model.item_table(mixture.text[codes.to(device)])
    places = torch.zeros_like(inputs)
    places[mask] = local[: len(targets)]

    def read(vectors: Tensor, rows: Tensor, lengths: npt.NDArray[np.int64]) -> Tensor:
        return encoded(lambda some: model.encode(vectors[some]), rows.to(device), lengths)

    states = read(table, places, length)
    candidates, wanted = torch.unique(local[len(targets) :], return_inverse=True)
    tau = settings.network.temperature
    loss = sequence_item_loss(states, table[candidates.to(device)], wanted.to(device), tau)
    if settings.sequence_weight == 0:
        return loss
    if draw.random() < settings.item_drop_coefficient:
        alive = torch.from_numpy(surviving(real, settings.item_drop, draw))
        dropped, left = closed_up(places, alive)
        copies = read(table, dropped, left)
        seen = alive[mask].to(device)
        states, wanted = states[seen], wanted[alive[mask]]
    else:
        assert mixture.augmented is not None, "pretrain() has seen to it"
        changed = torch.from_numpy(draw.random(places.shape) < settings.item_drop)
        both = torch.cat([table, model.item_table(mixture.augmented[codes.to(device)])])
        copies = read(both, places + changed * len(table), length)
    return loss + settings.sequence_weight * sequence_sequence_loss(states, copies, wanted.to(device), tau)


def sequence_item_loss(states: Tensor, items: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Contrast of each row with the target items of all rows (equation 8, as in the authors' code).

    Over rows i, j: the mean of ``-log(e^(a_ii) / sum_j e^(a_ij))`` with a_ij = cos(state i, target of j) / tau, but
    a_ij = 0 where j is another row with the target of i. Rows of one target have equal columns, so these are computed
    once and counted: [N, U] logits give what [N, N] would.

    Args:
        states: [N, d] sequence vectors.
        items: [U, d] vectors of the distinct targets.
        target: int64 [N], row of ``items`` that follows each state.
        temperature: tau.
    """
    count = torch.bincount(target, minlength=len(items))

    def part(unit: Tensor, candidates: Tensor, target: Tensor) -> Tensor:
        logits = _logits(unit, candidates, temperature)
        place = target.unsqueeze(1)
        own = logits.gather(1, place)
        weight = count.to(logits.dtype)
        others = (logits + weight.log()).scatter(1, place, -torch.inf)
        # Each other row of the same target adds e^0.
        same = (weight[target] - 1).log().unsqueeze(1)
        return torch.cat([others, own, same], 1).logsumexp(1) - own.squeeze(1)

    return _mean_of_parts(part, F.normalize(states, dim=-1), F.normalize(items, dim=-1), target)


def sequence_sequence_loss(states: Tensor, copies: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Contrast of each row with the augmented copies of all rows (equation 9, as in the authors' code).

    The form of :func:`sequence_item_loss` with the copy of row j in place of its target item.

    Args:
        states: [N, d] sequence vectors.
        copies: [N, d] vectors of their augmented copies.
        target: int64 [N], equal for rows that the same item follows.
        temperature: tau.
    """
    number = torch.arange(len(target), device=target.device)

    def part(unit: Tensor, candidates: Tensor, number: Tensor) -> Tensor:
        logits = _logits(unit, candidates, temperature)
        own = number.unsqueeze(1)
        same = (target[number].unsqueeze(1) == target).scatter(1, own, False)
        return logits.masked_fill(same, 0).logsumexp(1) - logits.gather(1, own).squeeze(1)

    return _mean_of_parts(part, F.normalize(states, dim=-1), F.normalize(copies, dim=-1), number)


def _logits(unit: Tensor, candidates: Tensor, temperature: float) -> Tensor:
    logits = unit @ candidates.T
    # Autocast multiplies in bfloat16, of which a sum of exponentials would keep hardly a digit.
    return logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature


def _mean_of_parts(
    part: Callable[[Tensor, Tensor, Tensor], Tensor], unit: Tensor, candidates: Tensor, index: Tensor
) -> Tensor:
    """Return the mean of a loss of all rows, computed for so many rows at a time as ``_LOGITS`` allows."""
    rows = max(1, _LOGITS // len(candidates))
    if len(unit) <= rows:
        return part(unit, candidates, index).mean()
    cut = zip(unit.split(rows), index.split(rows), strict=True)
    return torch.cat([checkpoint(part, some, candidates, which, use_reentrant=False) for some, which in cut]).mean()


def surviving(real: npt.NDArray[np.bool_], share: float, draw: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return which items are left in the augmented copy, bool [B, L], when each is dropped with probability ``share``.

    As in the authors' code, a dropped item replaces the one that was kept before it: of each run "kept, then dropped"
    the last item is left. So the last item of a sequence always is; the first one counts as kept.

    Args:
        real: bool [B, L], items of right-padded sequences.
        share: probability.
        draw: one number is drawn for each place.
    """
    keep = draw.random(real.shape) >= share
    following = np.zeros_like(real)
    following[:, :-1] = real[:, 1:]
    after = np.ones_like(real)
    after[:, :-1] = keep[:, 1:]
    return real & (after | ~following)


def closed_up(codes: Tensor, alive: Tensor) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """Return the codes that are alive moved to the left, int64 [B, L'], and how many they are, int64 [B]."""
    order = (~alive).to(torch.uint8).argsort(dim=1, stable=True)
    left = alive.sum(1).numpy()
    return codes.gather(1, order)[:, : left.max()], left
