"""Pre-training of Recformer over mixed source domains (arXiv 2305.13731, section 2.4).

Each sequence gives a pair: the items before a random place of its second half, and the item there. Item-item contrast
tells the pair's item from those of the others in the batch; masked language modelling runs on both texts. What differs
from the authors' code: the vocabulary is learnt from the sources, and the word embeddings, which start at random, are
trained unless they are frozen.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from ckd.stages.batching import random_batches
from ckd.stages.teachers import parallel
from ckd.stages.teachers.contract import DomainData, Job
from ckd.stages.teachers.held_out import hits, split_sequences
from ckd.stages.teachers.loop import run_epochs
from ckd.stages.teachers.recformer import PretrainSettings
from ckd.stages.teachers.recformer.config import from_settings
from ckd.stages.teachers.recformer.encode import encode_batch, groups
from ckd.stages.teachers.recformer.masking import IGNORED, mask, mask_token, word_starts
from ckd.stages.teachers.recformer.network import LanguageHead, Recformer, at_least_float32, cosine_scores
from ckd.stages.teachers.recformer.tokens import Inputs, ItemTokens, Limits, assemble, catalogue, tokenise
from ckd.stages.teachers.recformer.vocabulary import learn_vocabulary
from ckd.stages.teachers.state import Epoch

Int64s = npt.NDArray[np.int64]

SHORTEST = 2
"""Items that a sequence needs to give a pair."""
_SCORED = 64
"""Held-out sequences that are encoded at a time."""


class Pretraining(nn.Module):
    """The network with its language head; the loss of one batch of pairs."""

    def __init__(self, model: Recformer, mlm_weight: float, starts: npt.NDArray[np.bool_], mask_id: int) -> None:
        super().__init__()
        self.longformer, self.lm_head = model, LanguageHead(model.config)
        self._mlm_weight, self._starts, self._mask_id = mlm_weight, starts, mask_id

    def loss(self, history: Inputs, item: Inputs, device: torch.device, draw: np.random.Generator) -> Tensor:
        """Return the loss of pairs, with words masked that the random numbers choose."""
        pairs = history, item
        masked = [mask(part, self._starts, self._mask_id, draw) for part in pairs] if self._mlm_weight else []
        return self.combined(history, item, masked, device)

    def combined(
        self, history: Inputs, item: Inputs, masked: Iterable[tuple[Inputs, Tensor]], device: torch.device
    ) -> Tensor:
        """Return contrast + lambda (MLM on the histories + MLM on the items), paper, equation 10.

        Args:
            history, item: the pairs.
            masked: masked histories and masked items, each with the tokens to be found.
            device: where the network is; pairs and texts are not there yet.
        """
        # As in the authors' runs on several GPUs: gradients flow through a process' own rows only and are averaged
        # after that, so that with P processes the contrast weighs 1 / P of what it would on one; and the mean over
        # masked tokens is that of each process.
        a, b = (parallel.gathered(encode_batch(self.longformer, part, device)) for part in (history, item))
        total = item_contrast(a, b, self.longformer.config.temp)
        for inputs, wanted in masked:
            total = total + self._mlm_weight * self.masked_language(inputs, wanted, device)
        return total

    def masked_language(self, inputs: Inputs, wanted: Tensor, device: torch.device) -> Tensor:
        """Return the mean cross-entropy of the tokens to be found, int64 [B, L] with :data:`IGNORED` elsewhere.

        Zero where there is none: a batch of empty histories.
        """
        found, asked = [], []
        for rows in groups(inputs.lengths, device):
            part = inputs.take(rows)
            its = wanted[torch.from_numpy(rows), : part.ids.shape[1]].to(device)
            chosen = its != IGNORED
            found.append(self.longformer.hidden_states(part.to(device))[-1][chosen])
            asked.append(its[chosen])
        states = torch.cat(found)
        if not len(states):
            return states.sum()
        return F.cross_entropy(at_least_float32(self.lm_head(states)), torch.cat(asked))


def item_contrast(histories: Tensor, items: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of each history's own item against all items of the batch, [B, d] each (equation 9)."""
    logits = cosine_scores(histories, items, temperature)
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


@dataclass(frozen=True)
class Mixture:
    """Source domains as one: item codes of later domains are shifted behind those of earlier ones.

    Attributes:
        tokens: of all items.
        sequence: int32, all items of all sequences.
        start, length: int64 [S], first item and number of items of each sequence that gives pairs.
        limits: of an item and of a history.
    """

    tokens: ItemTokens
    sequence: npt.NDArray[np.int32]
    start: Int64s
    length: Int64s
    limits: Limits

    def pairs(self, rows: Int64s, place: Int64s) -> tuple[Inputs, Inputs]:
        """Return the histories before an item of each sequence, and the items: int64 [B] rows and places."""
        target = self.start[rows] + place
        history = assemble(self.tokens, self.sequence, target, place, self.limits)
        return history, assemble(self.tokens, self.sequence, target + 1, np.ones_like(place), self.limits)


def mix(sources: Sequence[DomainData], tokens: ItemTokens, limits: Limits) -> Mixture:
    """Join source domains; all interactions are used, for nothing is evaluated on them."""
    sequences, starts, lengths = [], [], []
    items = interactions = 0
    for source in sources:
        corpus = source.corpus
        sequences.append(corpus.sequence + np.int32(items))
        starts.append(corpus.offsets[:-1] + interactions)
        lengths.append(corpus.lengths)
        items += corpus.n_items
        interactions += len(corpus.sequence)
    start, length = np.concatenate(starts), np.concatenate(lengths)
    usable = length >= SHORTEST
    return Mixture(tokens, np.concatenate(sequences), start[usable], length[usable], limits)


def pretrain(job: Job, sources: Sequence[DomainData]) -> tuple[Recformer, Tokenizer, list[Epoch]]:
    """Train a Recformer from scratch; return it with its tokenizer and one row of the curve per epoch.

    Raises:
        UserError: the sources have fewer sequences than are held out.
    """
    settings: PretrainSettings = job.settings
    items = [item for source in sources for item in catalogue(source.corpus)]
    tokenizer = learn_vocabulary(items, settings.network.vocabulary)
    sizes = settings.network.model_copy(update={"vocabulary": tokenizer.get_vocab_size()})
    config = from_settings(sizes).model_copy(update={"mlm_weight": settings.mlm_weight})
    mixture = mix(sources, tokenise(items, tokenizer, config.limits), config.limits)
    held_out, trained = split_sequences(len(mixture.start), settings.held_out, settings.seed)
    torch.manual_seed(settings.seed)
    model = Pretraining(Recformer(config), settings.mlm_weight, word_starts(tokenizer), mask_token(tokenizer))
    model.to(job.device)
    if settings.freeze_words:
        model.longformer.embeddings.word_embeddings.requires_grad_(False)
    optimiser = torch.optim.AdamW(
        [tensor for tensor in model.parameters() if tensor.requires_grad], lr=settings.learning_rate, weight_decay=0.0
    )
    steps = settings.epochs * -(-len(trained) // settings.batch_size)
    curve = run_epochs(
        job,
        model,
        optimiser,
        lambda _, draw: drawn_pairs(mixture, trained, settings.batch_size, draw),
        lambda pairs, draw: model.loss(*mixture.pairs(pairs[:, 0], pairs[:, 1]), job.device, draw),
        seed=settings.seed,
        epochs=settings.epochs,
        validate=lambda: {"accuracy": accuracy(model.longformer, mixture, held_out, job.device)},
        watched="accuracy",
        patience=settings.patience,
        schedule=torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: max(0.0, 1 - step / steps)),
        precision=settings.precision,
        clip=settings.clip,
    )
    return model.longformer, tokenizer, curve


def drawn_pairs(mixture: Mixture, rows: Int64s, batch_size: int, draw: np.random.Generator) -> list[Int64s]:
    """Return the pairs of one epoch in random batches, int64 [B, 2]: a sequence and the place of its item, which is in
    its second half.
    """
    length = mixture.length[rows]
    place = draw.integers((length - 1) // 2, length)
    pairs = np.stack([rows, place], 1)
    return [pairs[batch] for batch in random_batches(len(pairs), batch_size, draw)]


@torch.inference_mode()
def accuracy(model: Recformer, mixture: Mixture, held_out: Int64s, device: torch.device) -> float:
    """Return how often the last item of a held-out sequence scores best among the last items of all of them."""
    model.eval()
    order = held_out[np.argsort(-mixture.length[held_out], kind="stable")]
    pairs = [
        mixture.pairs(rows, mixture.length[rows] - 1)
        for rows in (order[at : at + _SCORED] for at in range(0, len(order), _SCORED))
    ]
    histories, items = (torch.cat([model(pair[side].to(device)) for pair in pairs]) for side in (0, 1))
    own = torch.from_numpy(mixture.sequence[mixture.start[order] + mixture.length[order] - 1]).to(device)
    return hits(cosine_scores(histories, items, model.config.temp), own)
