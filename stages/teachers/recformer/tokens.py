"""Items and histories as token sequences: what a Recformer reads (arXiv 2305.13731, section 2.2).

An item is the flat text of its attributes, names and values tokenised apart; a history is its items, newest first,
behind one ``<s>``, without separators. The items of a catalogue are tokenised once and kept as one ragged array, from
which any batch of histories is put together by indexing.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ckd.stages.batching import flat_index
from ckd.storage.corpus import Corpus

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
START, PAD = 0, 1
MASK = "<mask>"
START_TYPE, NAME_TYPE, VALUE_TYPE, PAD_TYPE = 0, 1, 2, 3

ATTRIBUTES = {"title": "title", "brand": "brand", "categories": "category"}
"""Column of a corpus to the name under which the authors give it, in their order."""

_TOGETHER = 4_096
"""Items that are tokenised at a time: what the tokenizer returns is many times larger than the ids."""


@dataclass(frozen=True)
class Limits:
    """What of an item and of a history is read.

    Attributes:
        attributes: of an item, the first ones.
        attribute_tokens: of one attribute, its name included.
        items: of a history, the newest ones.
        tokens: of a history, the newest ones, ``<s>`` included.
    """

    attributes: int
    attribute_tokens: int
    items: int
    tokens: int


@dataclass(frozen=True)
class ItemTokens:
    """The tokens of n items, one item after the other.

    Attributes:
        ids: int32 [sum of lengths].
        types: int8 of the same length, :data:`NAME_TYPE` or :data:`VALUE_TYPE`.
        offsets: int64 [n + 1].
    """

    ids: Int32s
    types: npt.NDArray[np.int8]
    offsets: Int64s

    @property
    def lengths(self) -> Int64s:
        """Tokens per item, int64 [n]."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Inputs:
    """A batch of B token sequences, right-padded to the longest.

    Attributes:
        ids, item_position, types: int64 [B, L].
        real: bool [B, L], false where padded.
    """

    ids: Tensor
    item_position: Tensor
    types: Tensor
    real: Tensor

    def to(self, device: torch.device) -> "Inputs":
        """Return the batch on a device."""
        return Inputs(*(tensor.to(device, non_blocking=True) for tensor in vars(self).values()))

    @property
    def lengths(self) -> Int64s:
        """Tokens of each sequence of a batch in the processor's memory, int64 [B]."""
        counts: Int64s = self.real.sum(1).numpy()
        return counts

    def take(self, rows: Int64s) -> "Inputs":
        """Return some of the sequences of a batch in the processor's memory, in order, padded to their longest."""
        index = torch.from_numpy(rows)
        longest = int(self.real[index].sum(1).max())
        return Inputs(*(tensor[index, :longest] for tensor in vars(self).values()))


def tokenise(items: Sequence[Mapping[str, str]], tokenizer: Tokenizer, limits: Limits) -> ItemTokens:
    """Return the tokens of items given as attributes, name to value, in the order in which they are read.

    Names and values are tokenised apart and without an added space; an attribute is cut to its limit, name included.
    """
    ids, types, lengths = array("i"), array("b"), []
    for start in range(0, len(items), _TOGETHER):
        attributes = [list(item.items())[: limits.attributes] for item in items[start : start + _TOGETHER]]
        texts = [text for item in attributes for pair in item for text in pair]
        encoded = iter(tokenizer.encode_batch(texts, add_special_tokens=False))
        for item in attributes:
            before = len(ids)
            for _ in item:
                name, value = next(encoded).ids, next(encoded).ids
                ids.extend([*name, *value][: limits.attribute_tokens])
                types.extend(([NAME_TYPE] * len(name) + [VALUE_TYPE] * len(value))[: limits.attribute_tokens])
            lengths.append(len(ids) - before)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return ItemTokens(np.array(ids, np.int32), np.array(types, np.int8), offsets)


def catalogue(corpus: Corpus) -> Iterator[dict[str, str]]:
    """Yield the attributes of each item of a corpus, in order of code; one that is unknown is an empty text."""
    columns = [corpus.items[column].to_pylist() for column in ATTRIBUTES]
    for values in zip(*columns, strict=True):
        yield {name: value or "" for name, value in zip(ATTRIBUTES.values(), values, strict=True)}


def token_counts(tokens: ItemTokens, sequence: Int32s, end: Int64s, items: Int64s, limits: Limits) -> Int64s:
    """Return the tokens of histories, ``<s>`` included and cut to the limit, int64 [B].

    Args:
        tokens: of the catalogue.
        sequence: flat item codes.
        end: int64 [B], index in ``sequence`` behind the newest item of each history.
        items: int64 [B], items of each history.
        limits: of a history.
    """
    if not len(end):
        return np.empty(0, np.int64)
    start = end - np.minimum(items, limits.items)
    first, last = int(start.min()), int(end.max())
    before = np.concatenate([[0], np.cumsum(tokens.lengths[sequence[first:last]])])
    return np.minimum(1 + before[end - first] - before[start - first], limits.tokens)


def assemble(tokens: ItemTokens, sequence: Int32s, end: Int64s, items: Int64s, limits: Limits) -> Inputs:
    """Return histories as one batch; the arguments are those of :func:`token_counts`.

    The item position of ``<s>`` is 0, that of the newest item's tokens 1. What is beyond ``limits.tokens`` is cut, also
    inside an item. An empty history is ``<s>`` alone.
    """
    shown = np.minimum(items, limits.items)
    # Newest first: the items of a history are read backwards.
    owner = np.repeat(np.arange(len(end)), shown)
    nth = flat_index(np.zeros(len(end), np.int64), shown)
    code = sequence[end[owner] - 1 - nth]
    length = tokens.lengths[code]
    source = flat_index(tokens.offsets[code], length)
    row, place = np.repeat(owner, length), np.repeat(nth + 1, length)
    total = np.bincount(row, minlength=len(end))
    column = flat_index(np.ones(len(end), np.int64), total)
    keep = column < limits.tokens
    counts = np.minimum(total + 1, limits.tokens)
    shape = (len(end), int(counts.max(initial=1)))
    ids, item_position, types = (
        np.full(shape, PAD, np.int64),
        np.full(shape, limits.items, np.int64),
        np.full(shape, PAD_TYPE, np.int64),
    )
    ids[:, 0], item_position[:, 0], types[:, 0] = START, 0, START_TYPE
    at = row[keep], column[keep]
    ids[at], item_position[at], types[at] = tokens.ids[source[keep]], place[keep], tokens.types[source[keep]]
    real = np.arange(shape[1]) < counts[:, None]
    return Inputs(*(torch.from_numpy(values) for values in (ids, item_position, types, real)))


def single_items(tokens: ItemTokens, codes: Int64s, limits: Limits) -> Inputs:
    """Return items as one batch, each the history of that one item."""
    ends = np.arange(1, len(codes) + 1)
    return assemble(tokens, codes.astype(np.int32), ends, np.ones(len(codes), np.int64), limits)
