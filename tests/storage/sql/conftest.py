"""A store with two domains, two teachers and two runs, and what went into it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ckd.storage import labels as stored_labels
from ckd.storage import runs as stored_runs
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus, read_corpus, write_corpus
from ckd.storage.keys import Address
from ckd.storage.labels import LabelBlock
from ckd.storage.sql import Contents, LabelSource, open_views
from ckd.storage.store import Store

N_ITEMS, K, WIDTH = 30, 12, 4
TEACHERS = ("uni's", "rec former")
DOMAINS = ("tools", "it's [odd] *")
"""Names come from users: quotes and wildcards must do no harm."""


def commit_corpus(store: Store, domain: str, numeric: bool) -> Artifact:
    random = np.random.default_rng(len(domain))
    lengths = random.integers(3, 9, 20)
    sequences = [random.integers(0, N_ITEMS, length).astype(np.int32) for length in lengths]
    ids = (lambda kind, n: [*range(100, 100 + n)]) if numeric else (lambda kind, n: [f"{kind}{i:03}" for i in range(n)])
    items = pa.table(
        {
            "item": pa.array(np.arange(N_ITEMS, dtype=np.int32)),
            "item_id": ids("i", N_ITEMS),
            "title": [f"title {code}, \"the\" 'one'" for code in range(N_ITEMS)],
            "brand": ["b"] * N_ITEMS,
            "categories": ["c"] * N_ITEMS,
            "description": ["d"] * N_ITEMS,
            "popularity": pa.array(np.arange(N_ITEMS, dtype=np.int32)),
        }
    )
    users = pa.table(
        {
            "user_id": ids("u", len(sequences)),
            "items": pa.array(sequences, pa.list_(pa.int32())),
            "timestamps": pa.array([np.arange(len(one)) + 5 for one in sequences], pa.list_(pa.int64())),
        }
    )
    with store.draft(Address("corpus", {"domain": domain})) as draft:
        write_corpus(draft, items, users)
        return draft.commit()


def make_block(corpus: Corpus, first: int, last: int, seed: int, with_state: bool) -> LabelBlock:
    random = np.random.default_rng([seed, first])
    at = corpus.positions(first, last)
    logprobs = np.log(random.dirichlet(np.ones(N_ITEMS), len(at))).astype(np.float32)
    best = np.argsort(-logprobs, axis=1)
    target = at.target[:, None]
    return LabelBlock(
        user=at.user,
        position=at.position,
        split=at.split,
        target=at.target,
        items=best[:, :K].astype(np.int32),
        logprobs=np.take_along_axis(logprobs, best[:, :K], 1),
        logsumexp=random.normal(size=len(at)).astype(np.float32),
        kept_mass=np.exp(np.take_along_axis(logprobs, best[:, :K], 1)).sum(1),
        target_logprob=np.take_along_axis(logprobs, target, 1)[:, 0],
        target_rank=(1 + np.argmax(best == target, axis=1)).astype(np.int32),
        entropy=-(np.exp(logprobs) * logprobs).sum(1),
        state=random.normal(size=(len(at), WIDTH)).astype(np.float32) if with_state else None,
    )


def commit_labels(store: Store, teacher: str, domain: str, corpus: Corpus) -> tuple[Artifact, list[LabelBlock]]:
    """Two shards with all users, and a file that no manifest names."""
    seed = TEACHERS.index(teacher)
    blocks = [make_block(corpus, *span, seed, with_state=seed == 0) for span in ((0, 11), (11, corpus.n_users))]
    place = (("teacher", str(seed)), ("domain", str(DOMAINS.index(domain))))
    with store.draft(Address("labels", {"teacher": teacher, "domain": domain}, place)) as draft:
        for number, block in enumerate(blocks):
            stored_labels.write_part(draft, number, block, corpus, {})
        artifact = draft.commit()
    (artifact.path / "part-00077.parquet").write_bytes((artifact.path / "part-00000.parquet").read_bytes())
    return artifact, blocks


def commit_run(store: Store, domain: str, corpus: Corpus, distilled: bool) -> Artifact:
    ranks = {
        split: np.random.default_rng([distilled, place]).integers(1, N_ITEMS, corpus.n_users).astype(np.int32)
        for place, split in enumerate(("valid", "test"))
    }
    inputs = {"student": "sasrec", "domains": [domain], "seed": 1, "distilled": distilled}
    inputs["settings"] = {"temperature": 0.07}  # the student's own is not the distillation's
    with store.draft(Address("runs", {**inputs, "distill": {"alpha": 0.25} if distilled else {}})) as draft:
        stored_runs.write_metrics(
            draft,
            {domain: {split: {"mrr": float((1 / of).mean()), "ndcg@10": 0.5} for split, of in ranks.items()}},
        )
        stored_runs.write_ranks(draft, {domain: ranks}, {domain: corpus})
        return draft.commit({"epochs": 9, "best_epoch": 4, "parameters": 1234})


class Stored:
    """A store with two domains, two teachers, two runs, and what went into it."""

    def __init__(self, root: Path, numeric: tuple[bool, bool]) -> None:
        self.store = Store(root)
        self.artifacts = {d: commit_corpus(self.store, d, n) for d, n in zip(DOMAINS, numeric, strict=True)}
        self.corpora = {domain: read_corpus(artifact) for domain, artifact in self.artifacts.items()}
        self.blocks: dict[tuple[str, str], list[LabelBlock]] = {}
        self.labels = []
        for teacher in TEACHERS:
            for domain, corpus in self.corpora.items():
                artifact, self.blocks[teacher, domain] = commit_labels(self.store, teacher, domain, corpus)
                self.labels.append(LabelSource(teacher, domain, artifact))
        self.runs = [commit_run(self.store, "tools", self.corpora["tools"], distilled) for distilled in (True, False)]
        self.contents = Contents(self.artifacts, self.labels, self.runs)

    def digests(self) -> dict[str, str]:
        files = (path for path in self.store.root.rglob("*") if path.is_file())
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="session")
def make_stored() -> type[Stored]:
    """What makes such a store in a folder; its second argument says which domains number their users and items."""
    return Stored


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return Stored(tmp_path_factory.mktemp("st'o[r]e *"), (False, True))


@pytest.fixture(scope="module")
def connection(stored: Stored) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_views(stored.contents, threads=1) as connection:
        yield connection


@pytest.fixture(scope="module")
def link_outside(stored: Stored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    secret = tmp_path_factory.mktemp("outside") / "secret.parquet"
    pq.write_table(pa.table({"a": [1]}), secret)
    link = stored.store.root / "labels" / "link.parquet"
    link.symlink_to(secret)
    return link
