"""For whom distillation pays: gains by how often the true item was seen in training, and by length of the history."""

from collections.abc import Iterator

import numpy as np
from runs import Found, mean_over_seeds, teacher_values
from tables import shown_gain
from variants import NONE, Variant

from ckd.pipeline.plan import Plan
from ckd.stages.evaluate.bootstrap import relative_gain
from ckd.storage.corpus import Corpus, read_corpus

POPULARITY = (0, 5, 10, 20, 50)
LENGTH = (2, 4, 6, 10, 20)
"""Lower ends of the bands."""


def print_bands(plan: Plan, found: Found, student: str, variant: Variant, metric: str) -> None:
    """Print a metric of the teachers and of a student without and with them, in every band of every domain."""
    teachers = list(plan.configuration.teachers)
    print(f"| domain | test targets | users | {' | '.join(teachers)} | without | distilled | difference, 95 % |")
    print("|---|---|---:|" + "---:|" * (len(teachers) + 3))
    for domain in plan.configuration.domains:
        if (domain, student, variant.name) not in found or (domain, student, NONE.name) not in found:
            continue
        artifact = plan.store.find(plan.corpus(domain))
        if artifact is None:
            continue
        before, after = (
            mean_over_seeds(found[domain, student, name], domain)[metric] for name in (NONE.name, variant.name)
        )
        theirs = [teacher_values(plan, name, domain) for name in teachers]
        for name, users in bands(read_corpus(artifact)):
            if not users.any():
                continue
            shown = shown_gain(relative_gain(before[users], after[users]))
            values = [*(None if each is None else each[metric] for each in theirs), before, after]
            cells = " | ".join("" if each is None else f"{each[users].mean():.4f}" for each in values)
            print(f"| {domain} | {name} | {users.sum():,} | {cells} | {shown} |")


def bands(corpus: Corpus) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of each band and which users are in it, bool [n_users]."""
    target = corpus.sequence[corpus.offsets[1:] - 1]
    popularity = corpus.items["popularity"].to_numpy()[target]
    yield from _cut("seen {} times in training", popularity, POPULARITY)
    yield from _cut("after {} items", corpus.lengths - 1, LENGTH)


def _cut(text: str, values: np.ndarray, edges: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        span = f"{low} or more" if high is None else f"{low} to {high - 1}" if high - low > 1 else str(low)
        yield text.format(span), (values >= low) & (values < (np.inf if high is None else high))
