"""What each teacher of a configuration is worth on each of its domains: test Recall and NDCG, full ranking.

    ckd -c benchmarks/teachers/five.yaml --set domains.beauty.path=BEAUTY ... pretrain
    python benchmarks/teachers/teachers.py benchmarks/teachers/five.yaml --set domains.beauty.path=BEAUTY ...

Of a domain with more users than ``--users`` a sample is drawn, the same one for every model. Ties count against it.
SASRec's row comes from the runs in the store, on the same users, if `ckd distill` made them; teachers that are not
trained yet are passed over with a line.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ckd.pipeline.config.load import load_configuration
from ckd.pipeline.device import chosen_device
from ckd.pipeline.plan import Pending, Plan, Run
from ckd.pipeline.tasks.inputs import corpus_of, text_of
from ckd.stages.evaluate.metrics import metrics
from ckd.stages.evaluate.ranking import pessimistic_rank
from ckd.stages.teachers import TEACHERS
from ckd.stages.teachers.contract import Opening, Teacher
from ckd.storage.corpus import Corpus
from ckd.storage.runs import read_ranks

BATCH = 256
NAMES = ("recall@10", "ndcg@10", "recall@50", "ndcg@50")


def main() -> None:
    """Print one row per domain and model, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configuration", type=Path)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--users", type=int, default=5_000)
    chosen = parser.parse_args()
    plan = Plan(load_configuration(chosen.configuration, chosen.overrides))
    print("| domain | users | model |", " | ".join(NAMES), "|")
    print("|---|---:|---|", "---:|" * len(NAMES), sep="")
    for domain in plan.configuration.domains:
        corpus = corpus_of(plan, domain)
        users = sample(corpus, chosen.users)
        for model, ranks in rows(plan, domain, corpus, users):
            values = metrics(ranks, (10, 50))
            cells = " | ".join(f"{values[name]:.4f}" for name in NAMES)
            print(f"| {domain} | {len(users):,} | {model} | {cells} |", flush=True)


def sample(corpus: Corpus, most: int) -> np.ndarray:
    """Return user codes, int32, in order: all, or a sample of ``most``."""
    if corpus.n_users <= most:
        return np.arange(corpus.n_users, dtype=np.int32)
    return np.sort(np.random.default_rng(0).choice(corpus.n_users, most, replace=False)).astype(np.int32)


def rows(plan: Plan, domain: str, corpus: Corpus, users: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each model and its ranks of the test targets of some users."""
    for student in plan.configuration.students:
        run = plan.store.find(plan.run(Run(student, (domain,), False)))
        if run is not None:
            yield student, read_ranks(run, domain, "test")[users]
    for teacher in plan.configuration.teachers:
        if plan.teacher(teacher).labels(domain):
            try:
                opened = open_teacher(plan, teacher, domain, corpus)
            except Pending as pending:
                print(f"<!-- {domain}, {teacher}: {pending} -->")
                continue
            yield teacher, ranks_of(opened, corpus, users)


def open_teacher(plan: Plan, teacher: str, domain: str, corpus: Corpus) -> Teacher:
    """Open a dual encoder as it labels."""
    device = chosen_device(plan.configuration.device)
    frozen, way = plan.frozen(teacher, domain), plan.reads(teacher)
    text = None if way is None else text_of(plan, domain, way, corpus, device)
    settings = plan.configuration.teachers[teacher]
    opened: Teacher = TEACHERS.load(settings.kind).open_teacher(Opening(settings, frozen, corpus, text, device))
    return opened


def ranks_of(teacher: Teacher, corpus: Corpus, users: np.ndarray) -> np.ndarray:
    """Return the rank of each user's test target, ties against the teacher."""
    items = teacher.item_vectors().float()
    ranks = []
    for start in range(0, len(users), BATCH):
        some = users[start : start + BATCH]
        position = (corpus.lengths[some] - 1).astype(np.int32)
        target = torch.from_numpy(corpus.sequence[corpus.offsets[some] + position].astype(np.int64))
        scores = teacher.queries_at(some, position).float().to(items.device) @ items.T
        ranks.append(pessimistic_rank(scores, target.to(items.device)).cpu().numpy())
    return np.concatenate(ranks)


if __name__ == "__main__":
    main()
