"""What a student says at every position of a domain: with it, a student teaches others.

A student that has learned from teachers can be better than they are, and one of another kind differs from them: the
next student gains from both (born-again networks, Furlanello et al. 2018, arXiv 1805.04770; teacher assistants,
Mirzadeh et al. 2020, arXiv 1902.03393). What is written here a teacher of kind ``scores`` reads.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from ckd.stages.best_items import top_k
from ckd.stages.evaluate.ranking import Scorer, users_per_block
from ckd.stages.export.recommend import refuse_diverged
from ckd.storage.corpus import Corpus


def position_schema(corpus: Corpus) -> pa.Schema:
    """Return the columns of the lists: user_id, position, and the lists items and scores."""
    return pa.schema(
        [
            ("user_id", corpus.user_ids.type),
            ("position", pa.int32()),
            ("items", pa.list_(corpus.items["item_id"].type)),
            ("scores", pa.list_(pa.float64())),
        ]
    )


def position_lists(
    scorer: Scorer,
    corpus: Corpus,
    k: int,
    on_positions: Callable[[int], None] = lambda _: None,
    block: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the k best items at some positions at a time, best first; equal scores in order of item code.

    A position t of a user is the history of the first t items, as in labels. Scores are log-probabilities over the
    whole catalogue, computed in float64: log softmax of the student's.

    Args:
        scorer: of histories of ``corpus``.
        corpus: the domain.
        k: items of each list, at most the catalogue.
        on_positions: hears how many positions are done.
        block: positions at a time; by default as many as memory is meant for.

    Raises:
        UserError: the student's scores are no numbers.
    """
    at, schema, k = corpus.positions(), position_schema(corpus), min(k, corpus.n_items)
    ids = corpus.items["item_id"].combine_chunks()
    block = block or users_per_block(corpus.n_items)
    for start in range(0, len(at), block):
        users = at.user[start : start + block].astype(np.int32)
        position = at.position[start : start + block].astype(np.int32)
        scores = scorer(users, position).double()
        refuse_diverged(scores)
        logprobs, items = (found.cpu().numpy() for found in top_k(scores.log_softmax(1), k))
        offsets = pa.array(np.arange(0, logprobs.size + 1, k, dtype=np.int32))
        columns = [
            corpus.user_ids.take(pa.array(users)),
            pa.array(position),
            pa.ListArray.from_arrays(offsets, ids.take(pa.array(items.ravel()))),
            pa.ListArray.from_arrays(offsets, pa.array(logprobs.ravel())),
        ]
        yield pa.record_batch(columns, schema=schema)
        on_positions(len(users))
