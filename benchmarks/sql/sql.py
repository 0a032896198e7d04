"""How long typical questions take over a million labelled positions, on synthetic labels of real shape.

    python benchmarks/sql/sql.py                      # 2 teachers x 500,000 positions, k = 100, 20,000 items; 0.5 GB
    python benchmarks/sql/sql.py --positions 50000    # a quick look

Each question is asked through `ckd sql`'s own views and guard, in turn with the others, on two threads. `first` is with
an unknown store: every file that the question reads is compared with its digest before; the rounds after it find the
files compared.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from world import corpus_artifact, labels_artifact

from ckd.stages.precompute.address import agreement_address
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import read_corpus
from ckd.storage.keys import Address
from ckd.storage.sql import AgreementSource, Contents, LabelSource, ask, open_views
from ckd.storage.sql.agreement import write_agreement
from ckd.storage.store import Store

DOMAIN, TEACHERS = "shop", ("alpha", "beta")
QUESTIONS = {
    "agreement per popularity band": """
        with bands as (
            select item_id, ntile(5) over (order by popularity) as band from items where domain = 'shop')
        select band, avg(shared_10), avg(overlap), count(*)
        from agreement join bands on target = item_id where domain = 'shop' group by band order by band""",
    "kept mass, histogram": """
        select teacher, floor(kept_mass * 20) / 20 as mass, count(*)
        from labels where domain = 'shop' group by all order by all""",
    "hardest users": """
        select user_id, avg(-target_logprob) as loss, count(*)
        from labels where domain = 'shop' and teacher = 'alpha' group by user_id order by loss desc limit 20""",
    "a teacher's errors by category": """
        select categories, avg((target_rank > 10)::int) as missed, count(*) as n
        from labels join items on labels.domain = items.domain and target = item_id
        where labels.domain = 'shop' and teacher = 'alpha' group by categories having n > 100 order by missed desc""",
    "what is ranked first on test": """
        select title, count(*) as times from label_items
        where domain = 'shop' and teacher = 'alpha' and split = 'test' and rank = 1
        group by title order by times desc limit 20""",
    "who is closer to the truth": """
        select split, closer, count(*) from agreement where domain = 'shop' group by all order by all""",
}


def main() -> None:
    """Make the labels, ask, print the table."""
    parser = argparse.ArgumentParser(description="Time of SQL questions.")
    parser.add_argument("--positions", type=int, default=500_000, help="of each of two teachers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder of the labels; made if it is not there, and not removed")
    chosen = parser.parse_args()
    folder = chosen.keep or Path(tempfile.mkdtemp(prefix="ckd-sql-"))
    try:
        contents, rows, size = _labels(Store(folder), chosen.positions)
        _print(_times(contents, chosen.rounds, chosen.threads), rows, size)
    finally:
        if chosen.keep is None:
            shutil.rmtree(folder)


def _labels(store: Store, positions: int) -> tuple[Contents, int, int]:
    known = Address("corpus", {"domain": DOMAIN, "positions": positions})
    artifact = store.find(known) or corpus_artifact(store, DOMAIN, positions)
    corpus = read_corpus(artifact)
    place = [(("teacher", name), ("domain", DOMAIN)) for name in TEACHERS]
    addresses = [Address("labels", {"teacher": of[0][1], "corpus": corpus.key}, of) for of in place]
    labels = [
        store.find(address) or labels_artifact(store, name, DOMAIN, corpus)
        for name, address in zip(TEACHERS, addresses, strict=True)
    ]
    kept = write_agreement(store, agreement_address(*addresses), *labels)
    sources = [LabelSource(name, DOMAIN, each) for name, each in zip(TEACHERS, labels, strict=True)]
    contents = Contents({DOMAIN: artifact}, sources, agreements=[AgreementSource(DOMAIN, *TEACHERS, kept)])
    rows = sum(_part(each, "rows") for each in labels)
    return contents, rows, sum(_part(each, "bytes") for each in (artifact, *labels, kept))


def _part(artifact: Artifact, what: str) -> int:
    return sum(getattr(receipt, what) for receipt in artifact.files.values())


def _times(contents: Contents, rounds: int, threads: int) -> dict[str, list[float]]:
    """Return seconds by question: the first on a connection of its own, then the rounds, each question in turn."""
    times: dict[str, list[float]] = {}
    for name, question in QUESTIONS.items():
        started = time.perf_counter()
        with open_views(contents, threads=threads) as connection:
            _asked(connection, question)
        times[name] = [time.perf_counter() - started]
    with open_views(contents, threads=threads) as connection:
        for question in QUESTIONS.values():
            _asked(connection, question)
        for _ in range(rounds):
            for name, question in QUESTIONS.items():
                started = time.perf_counter()
                _asked(connection, question)
                times[name].append(time.perf_counter() - started)
    return times


def _asked(connection: object, question: str) -> pa.Table:
    with ask(connection, question) as answer:
        return pa.Table.from_batches(answer.batches(), answer.schema)


def _print(times: dict[str, list[float]], rows: int, size: int) -> None:
    print(f"{rows:,} labelled positions, {size / 1e6:,.0f} MB; load {os.getloadavg()[0]:.1f}\n")
    print("| question | first, ms | median, ms | slowest, ms |\n|---|---:|---:|---:|")
    for name, (first, *rest) in times.items():
        middle, most = statistics.median(rest), max(rest)
        print(f"| {name} | {first * 1e3:,.0f} | {middle * 1e3:,.0f} | {most * 1e3:,.0f} |")


if __name__ == "__main__":
    main()
