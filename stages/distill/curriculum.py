"""Curriculum: sequences served progressively harder (CKD-MDSR, arXiv 2401.00797; terms and pacings are our reading).

Difficulty is computed by SQL over the corpus and the cached labels, from the training part of each sequence only.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ckd.stages.distill.settings import CurriculumSettings
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError
from ckd.storage.sql import Contents, LabelSource, ask, open_views

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

TERMS = {
    # Every train position's target and the first item make up the training part of a sequence.
    "length": "select user_id, count(*) as term from interactions where split = 'train' group by user_id",
    # An item's surprise, -log of its share of the training interactions, averaged over the sequence.
    "popularity": """
        select user_id, avg(ln(total / greatest(popularity, 1))) as term
        from interactions join items using (domain, item),
             (select sum(popularity) as total from items)
        where split = 'train' group by user_id""",
    "teacher_loss": """
        select user_id, avg(-target_logprob) as term
        from labels where split = 'train' group by user_id""",
    # Over the pairs of teachers that both have a label at a position.
    "disagreement": "select user_id, avg(1 - overlap) as term from agreement where split = 'train' group by user_id",
}
"""Each built-in term as a query that gives one value per user; larger is harder."""

# The line break keeps a comment behind an expression to itself.
_EXPRESSION = "select user_id, ({}\n)::double as term from labels where split = 'train' group by user_id"


def difficulty(
    corpus: Corpus,
    artifact: Artifact,
    labels: Mapping[str, Artifact],
    terms: Mapping[str, float],
) -> Float64s:
    """Return d(u) in [0, 1] of every user, float64 [n_users]: the rank of the weighted sum of ranked terms.

    Args:
        corpus: the domain.
        artifact: its corpus artifact.
        labels: teacher to its labels of this domain.
        terms: name in :data:`TERMS`, or an SQL expression aggregated over a user's rows of ``labels`` (for
            instance ``avg(entropy)``, training positions only), to its weight. A user without a value is the easiest
            in that term. Users that are equal in every term are ordered by identifier.

    Raises:
        UserError: an expression is not valid SQL, or does not give one number per user.
    """
    return combined(term_values(corpus, artifact, labels, terms), terms)


def term_values(
    corpus: Corpus, artifact: Artifact, labels: Mapping[str, Artifact], terms: Iterable[str]
) -> dict[str, Float64s]:
    """Return each term's value of every user, float64 [n_users], before it is ranked; -inf where a user has none.

    Raises:
        UserError: an expression is not valid SQL, or does not give one number per user.
    """
    sources = [LabelSource(teacher, "domain", found) for teacher, found in labels.items()]
    values = {}
    # In one thread: which thread sums what is left to chance, and with it the last bits of an average, which order
    # users that differ in nothing else.
    with open_views(Contents({"domain": artifact}, sources), threads=1) as connection:
        for term in terms:
            query = TERMS.get(term) or _EXPRESSION.format(term)
            try:
                with ask(connection, f"select user_id, term from ({query})") as answer:
                    values[term] = _by_user(list(answer.batches()), corpus)
            except UserError as error:
                raise UserError(f"distill.curriculum.difficulty: {term!r}: {error}") from None
    return values


def combined(values: Mapping[str, Float64s], weights: Mapping[str, float]) -> Float64s:
    """Return d(u) in [0, 1], float64 [n_users], of the values of its terms and their weights."""
    total = np.zeros(len(next(iter(values.values()))))
    for term, value in sorted(values.items()):  # the order decides the last bits of the sum, and is in no key
        total += weights[term] * ranks(value)
    return ranks(total, break_ties=True)


def served_share(epoch: int, settings: CurriculumSettings) -> float:
    """Return c(e), the share of easiest sequences that epoch ``e`` (from 1) is drawn from.

    With s the start and p = (e - 1) / warmup: linear s + (1 - s) p; root sqrt(s^2 + (1 - s^2) p) (Platanios et al.
    2019, arXiv 1903.09848); step the linear share held for equal times, rising ``steps`` times; none 1. From
    epoch ``warmup`` + 1 on, always 1.
    """
    if settings.pacing == "none" or epoch > settings.warmup:
        return 1.0
    s, p = settings.start, (epoch - 1) / settings.warmup
    if settings.pacing == "root":
        return math.sqrt(s * s + (1 - s * s) * p)
    if settings.pacing == "step":
        p = (epoch - 1) * settings.steps // settings.warmup / settings.steps
    return s + (1 - s) * p


def served(hardness: Float64s, epoch: int, settings: CurriculumSettings) -> Int64s:
    """Return the rows that an epoch serves, easiest first, int64; at least one.

    Args:
        hardness: float64 [S], d(u) of the S sequences that can be served.
        epoch: from 1.
        settings: pacing, start, warm-up.
    """
    return np.argsort(hardness, kind="stable")[: _count(len(hardness), epoch, settings)]


def first_epoch(hardness: Float64s, settings: CurriculumSettings) -> Int64s:
    """Return the epoch that first serves each row, int64 [S], from 1 to ``warmup`` + 1; it is served ever after.

    Args:
        hardness: float64 [S], d(u) of the S sequences that can be served.
        settings: pacing, start, warm-up.
    """
    counts = [_count(len(hardness), epoch, settings) for epoch in range(1, settings.warmup + 2)]
    first = np.empty(len(hardness), np.int64)
    first[np.argsort(hardness, kind="stable")] = 1 + np.searchsorted(counts, np.arange(len(hardness)), side="right")
    return first


def _count(sequences: int, epoch: int, settings: CurriculumSettings) -> int:
    share = round(served_share(epoch, settings) * sequences, 6)  # 36 is not 36.000000000000007
    return max(1, math.ceil(share))


def _by_user(batches: Sequence[pa.RecordBatch], corpus: Corpus) -> Float64s:
    values = np.full(corpus.n_users, -np.inf)
    seen = np.zeros(corpus.n_users, np.int64)
    for batch in batches:
        user = pc.index_in(batch.column("user_id").cast(corpus.user_ids.type), value_set=corpus.user_ids).to_numpy()
        term = batch.column("term").cast(pa.float64()).to_numpy(zero_copy_only=False)
        np.add.at(seen, user, 1)
        values[user] = np.where(np.isnan(term), -np.inf, term)
    if seen.max() > 1:
        raise UserError("it gives several values per user; one is needed, such as avg(entropy)")
    return values


def ranks(values: Float64s, break_ties: bool = False) -> Float64s:
    """Return ranks scaled to [0, 1]; equal values share their mean rank unless ties are broken by position."""
    order = np.argsort(values, kind="stable")
    place = np.empty(len(values))
    place[order] = np.arange(len(values))
    if not break_ties:
        _, group = np.unique(values, return_inverse=True)
        place = (np.bincount(group, weights=place) / np.bincount(group))[group]
    return place / max(len(values) - 1, 1)
