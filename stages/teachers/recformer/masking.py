"""Whole-word masking for masked language modelling, as the authors do it (arXiv 2305.13731, section 2.4).

A token begins a word if its text begins with a space or with punctuation; others join the word before them. Names and
values are tokenised without a leading space, so an attribute's name and the first word of its value belong to the word
before them.
"""

import string

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ckd.stages.teachers.recformer.tokens import MASK, Inputs

SHARE = 0.15
MOST = 512
"""Masked tokens per sequence, at most."""
MASKED, RANDOM = 0.8, 0.1
"""Shares of the chosen tokens that become ``<mask>`` and a random token; the rest stay."""
IGNORED = -100

_SPACE = "Ġ"
"""How a byte-level vocabulary writes a space."""


def word_starts(tokenizer: Tokenizer) -> npt.NDArray[np.bool_]:
    """Return whether each token of a vocabulary begins a word, bool [vocabulary]."""
    starts = np.zeros(tokenizer.get_vocab_size(), bool)
    for token, number in tokenizer.get_vocab().items():
        starts[number] = token.startswith((_SPACE, *string.punctuation))
    return starts


def mask(
    inputs: Inputs, starts: npt.NDArray[np.bool_], mask_id: int, draw: np.random.Generator
) -> tuple[Inputs, Tensor]:
    """Return the batch with words masked, and the tokens that are to be found.

    Returns:
        The changed inputs, and int64 [B, L] with the original id where a token was chosen, else :data:`IGNORED`.
    """
    ids, real = inputs.ids.numpy().copy(), inputs.real.numpy()
    wanted = np.full_like(ids, IGNORED)
    for row, length in enumerate(real.sum(1)):
        chosen = chosen_tokens(starts[ids[row, :length]], draw)
        wanted[row, chosen] = ids[row, chosen]
        fate = draw.random(len(chosen))
        ids[row, chosen[fate < MASKED]] = mask_id
        other = chosen[(fate >= MASKED) & (fate < MASKED + RANDOM)]
        ids[row, other] = draw.integers(len(starts), size=len(other))
    changed = Inputs(torch.from_numpy(ids), inputs.item_position, inputs.types, inputs.real)
    return changed, torch.from_numpy(wanted)


def chosen_tokens(starts: npt.NDArray[np.bool_], draw: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the indices that are masked in one sequence: whole words in random order, as many as fit, never ``<s>``.

    Args:
        starts: bool [L], whether each token begins a word; the first one is ``<s>``.
        draw: decides the order of the words.
    """
    length = len(starts)
    if length < 2:
        return np.empty(0, np.int64)
    begins = np.flatnonzero(np.concatenate([[True], starts[2:]])) + 1
    ends = np.append(begins[1:], length)
    left = min(MOST, max(1, round(SHARE * length)))
    chosen: list[int] = []
    for word in draw.permutation(len(begins)).tolist():
        size = int(ends[word] - begins[word])
        if size <= left:
            chosen += range(begins[word], ends[word])
            left -= size
        if left == 0:
            break
    return np.array(chosen, np.int64)


def mask_token(tokenizer: Tokenizer) -> int:
    """Return the id of ``<mask>``."""
    number = tokenizer.token_to_id(MASK)
    if number is None:
        raise ValueError("the tokenizer has no <mask>")
    return int(number)
