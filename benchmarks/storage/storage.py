"""What a stored (item, log-probability) pair costs in several layouts, and how fast it is read.

    ckd -c benchmarks/quality/two.yaml precompute
    python benchmarks/storage/storage.py benchmarks/quality/two.yaml
    python benchmarks/storage/storage.py benchmarks/quality/two.yaml --synthetic 20000

The labels of the store, or those of a random teacher over a catalogue of some size, cut to k items; their
log-probabilities are computed again, so that each layout rounds the exact ones. Bytes are those of the columns of
items and log-probabilities, and of whole files: ckd's hold all of a label but its state. Reading is from the system's
cache to numpy arrays [n, k]; the aggregate, in plain DuckDB, is how often each item is stored, and its mean
log-probability. All layouts take turns, medians are printed, and the machine's load.
"""

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median

import duckdb
import numpy as np
import pyarrow.parquet as pq
from layouts import LAYOUTS, Layout
from sets import Labels, of_store, synthetic

AGGREGATE = (
    "select item, count(*) as stored, avg(logprob) from "
    "(select unnest(items) as item, unnest(logprobs) as logprob from read_parquet({})) "
    "group by item order by stored desc"
)
Written = dict[tuple[Layout, Labels], list[Path]]


def main() -> None:
    """Write all, take turns at reading, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--synthetic", type=int, metavar="ITEMS")
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    if chosen.synthetic:
        every = [synthetic(chosen.synthetic, chosen.k)]
    else:
        every = of_store(chosen.file, tuple(chosen.set), chosen.k)
    if not every:
        parser.error(f"the store has no labels with states and {chosen.k} items or more")
    with tempfile.TemporaryDirectory() as folder:
        written, errors = {}, {}
        for layout in LAYOUTS:
            for labels in every:
                place = Path(folder) / str(len(written))
                place.mkdir()
                written[layout, labels] = layout.write(labels, place)
                errors[layout, labels] = _checked(layout, labels, written[layout, labels])
        reading, asking = _turns(written, chosen.rounds)
        _print(every, written, errors, reading, asking)


def _checked(layout: Layout, labels: Labels, paths: list[Path]) -> float:
    """Return the largest error of a log-probability; the items must be those that were written."""
    items, logprobs = (np.concatenate(parts) for parts in zip(*(layout.read(p, labels) for p in paths), strict=True))
    if not np.array_equal(items, labels.block.items):
        raise AssertionError(f"{layout.name} gives other items back")
    return float(np.abs(logprobs - labels.block.logprobs).max())


def _turns(written: Written, rounds: int) -> tuple[dict[Layout, float], dict[Layout, float]]:
    """Return, by layout, labels read per second, and seconds of the aggregate over all labels."""
    reading, asking = defaultdict(list), defaultdict(list)
    every = {labels for _, labels in written}
    rows = sum(len(labels.block) for labels in every)
    for _ in range(rounds):
        for layout in LAYOUTS:
            sets = [(labels, written[layout, labels]) for labels in every]
            seconds = _seconds(lambda: [layout.read(path, labels) for labels, paths in sets for path in paths])  # noqa: B023
            reading[layout].append(rows / seconds)
            if layout.in_sql:
                asking[layout].append(sum(_seconds(lambda: _ask(paths)) for _, paths in sets))  # noqa: B023
    return {key: median(v) for key, v in reading.items()}, {key: median(v) for key, v in asking.items()}


def _ask(paths: list[Path]) -> None:
    with duckdb.connect() as connection:
        connection.execute(AGGREGATE.format([str(path) for path in paths])).fetchall()


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _print(
    every: list[Labels],
    written: Written,
    errors: dict[tuple[Layout, Labels], float],
    reading: dict[Layout, float],
    asking: dict[Layout, float],
) -> None:
    pairs = {labels: labels.block.items.size for labels in every}
    print(f"load {os.getloadavg()[0]:.1f}; labels: " + "; ".join(f"{each.name}: {len(each.block):,}" for each in every))
    names = "".join(f" {labels.name} |" for labels in every)
    print(f"\n| layout | error, at most |{names} mean | whole files | labels/s, thousands | DuckDB |")
    print("|---|---:|" + "---:|" * (len(every) + 4))
    for layout in LAYOUTS:
        sizes = [_column_bytes(layout, written[layout, labels]) / pairs[labels] for labels in every]
        whole = mean(sum(p.stat().st_size for p in written[layout, labels]) / pairs[labels] for labels in every)
        error = max(errors[layout, labels] for labels in every)
        cells = [f"{error:.5f}", *(f"{size:.2f}" for size in (*sizes, mean(sizes), whole))]
        cells += [f"{reading[layout] / 1e3:,.0f}", f"{1e3 * asking[layout]:,.0f} ms" if layout in asking else "no"]
        print(f"| {layout.name} | {' | '.join(cells)} |")


def _column_bytes(layout: Layout, paths: list[Path]) -> int:
    size = 0
    for path in paths:
        meta = pq.read_metadata(path)
        chunks = [meta.row_group(g).column(c) for g in range(meta.num_row_groups) for c in range(meta.num_columns)]
        size += sum(c.total_compressed_size for c in chunks if c.path_in_schema.split(".")[0] in layout.columns)
    return size


if __name__ == "__main__":
    main()
