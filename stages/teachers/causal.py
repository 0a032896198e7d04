"""The queries of a causal encoder: of every position in as few passes as there can be, and of one position per user."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ckd.stages.batching import at, histories, padded
from ckd.stages.teachers.windows import batches, windows
from ckd.storage.corpus import Corpus

Encode = Callable[[Tensor], Tensor]
"""int64 [B, L] item codes, oldest first, right-padded with anything -> floats [B, L, d].

The vector at index t stands for the history of the first t + 1 items.
"""


@torch.inference_mode()
def every_position(
    encode: Encode, corpus: Corpus, first: int, last: int, max_length: int, batch_size: int, like: Tensor
) -> Tensor:
    """Return the vector of every position of the users ``first`` to ``last`` (exclusive).

    Args:
        encode: the encoder.
        corpus: the domain.
        first, last: users.
        max_length: items of a history that are seen, the last ones.
        batch_size: passes at a time.
        like: floats [anything, d] of the type and on the device of the result, where codes are sent too.

    Returns:
        Floats [N, d] in the order of ``corpus.positions(first, last)``.
    """
    passes = windows(corpus, first, last, max_length)
    out = like.new_empty(int(passes.reads.sum()), like.shape[1])
    for batch in batches(passes, batch_size):
        length, reads = passes.length[batch], passes.reads[batch]
        codes = padded(corpus.sequence, passes.start[batch], length)
        encoded = encode(codes.to(like.device))
        index = torch.arange(encoded.shape[1])
        ends, counts = torch.from_numpy(length).unsqueeze(1), torch.from_numpy(reads).unsqueeze(1)
        read = (index < ends) & (index >= ends - counts)
        rows = (torch.from_numpy(passes.row[batch]).unsqueeze(1) + index - (ends - counts))[read]
        out[rows.to(like.device)] = encoded[read.to(like.device)]
    return out


@torch.inference_mode()
def one_position(
    encode: Encode,
    corpus: Corpus,
    users: npt.NDArray[np.int32],
    position: npt.NDArray[np.int32],
    max_length: int,
    device: torch.device,
) -> Tensor:
    """Return the vector of one position of each user, floats [n, d].

    Args:
        encode: the encoder.
        corpus: the domain.
        users: int32 [n], user codes.
        position: int32 [n], history lengths; the history is the user's first items.
        max_length: items of a history that are seen, the last ones.
        device: where codes are sent.
    """
    codes, ends = histories(corpus, users, position, max_length)
    return at(encode(codes.to(device)), ends)
