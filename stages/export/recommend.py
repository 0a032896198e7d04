"""The best items of each user, a bounded number of users at a time."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import torch

from ckd.stages.best_items import top_k
from ckd.stages.evaluate.ranking import Scorer, users_per_block, without_history
from ckd.stages.export.audience import Audience
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError


def list_schema(corpus: Corpus, titles: bool) -> pa.Schema:
    """Return the columns of the lists: user_id, rank from 1, item_id, score and, if asked for, title."""
    fields = [
        ("user_id", corpus.user_ids.type),
        ("rank", pa.int32()),
        ("item_id", corpus.items["item_id"].type),
        ("score", pa.float32()),
    ]
    return pa.schema([*fields, ("title", pa.string())] if titles else fields)


def refuse_diverged(scores: torch.Tensor) -> None:
    """Refuse scores that are no numbers, of which no item would be the best.

    Raises:
        UserError: there are some.
    """
    if bool(scores.isnan().any()):
        raise UserError("the student's scores are not numbers: its training diverged; train it again")


def best_lists(
    scorer: Scorer,
    audience: Audience,
    k: int,
    mask_seen: bool,
    titles: bool = False,
    on_users: Callable[[int], None] = lambda _: None,
    block: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the lists of some users at a time, user by user, best item first; equal scores in order of item code.

    Args:
        scorer: of histories of ``audience.corpus``; each user's is the whole sequence.
        audience: for whom.
        k: items of each list; a list is shorter where there are fewer.
        mask_seen: leave out what stands in the history.
        titles: give the items' titles too.
        on_users: hears how many users are done.
        block: users at a time; by default as many as memory is meant for.

    Raises:
        UserError: the student's scores are no numbers.
    """
    corpus = audience.corpus
    schema = list_schema(corpus, titles)
    ids = corpus.items["item_id"].combine_chunks()
    block = block or users_per_block(corpus.n_items)
    for start in range(0, len(audience.users), block):
        users = audience.users[start : start + block]
        whole = corpus.lengths[users].astype(np.int32)
        scores = scorer(users, whole)
        refuse_diverged(scores)
        if mask_seen:
            scores = without_history(scores, corpus, users, whole)
        values, items = (found.cpu() for found in top_k(scores, min(k, corpus.n_items)))
        real = (values > -torch.inf).numpy()
        place, rank = np.nonzero(real)
        codes = pa.array(items.numpy()[real])
        columns = [
            corpus.user_ids.take(pa.array(users[place])),
            pa.array((rank + 1).astype(np.int32)),
            ids.take(codes),
            pa.array(values.numpy()[real].astype(np.float32)),
        ]
        if titles:
            columns.append(corpus.items["title"].combine_chunks().take(codes).cast(pa.string()))
        yield pa.record_batch(columns, schema=schema)
        on_users(len(users))
