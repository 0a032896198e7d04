"""Label shards as others read them: plain DuckDB, pandas and Polars see lists of numbers, whatever the precision."""

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from ckd.storage.corpus import Corpus
from ckd.storage.keys import Address
from ckd.storage.labels import LabelBlock, part_names, write_part
from ckd.storage.rounding import ROUNDINGS
from ckd.storage.store import Store

K, N_ITEMS, USERS = 7, 50, 40


@pytest.fixture(params=list(ROUNDINGS))
def stored(request, tmp_path):
    """The shards of labels in one precision, and the block that was written into them."""
    lengths = np.random.default_rng(0).integers(3, 9, USERS)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    draw = np.random.default_rng(1)
    sequence = draw.integers(0, N_ITEMS, offsets[-1]).astype(np.int32)
    items = pa.table({"item": pa.array(range(N_ITEMS), pa.int32()), "item_id": [f"i{code}" for code in range(N_ITEMS)]})
    corpus = Corpus("key", items, pa.array([f"u{user:02}" for user in range(USERS)]), offsets, sequence)
    at = corpus.positions()
    scores = draw.normal(0, 2, (len(at), N_ITEMS))
    logprobs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    best = np.argsort(-logprobs, axis=1)[:, :K]
    kept = np.take_along_axis(logprobs, best, 1)
    numbers = draw.normal(size=(3, len(at))).astype(np.float32)
    block = LabelBlock(
        user=at.user,
        position=at.position,
        split=at.split,
        target=at.target,
        items=best.astype(np.int32),
        logprobs=ROUNDINGS[request.param](kept),
        logsumexp=numbers[0],
        kept_mass=np.exp(kept).sum(1).astype(np.float32),
        target_logprob=numbers[1],
        target_rank=at.position,
        entropy=numbers[2],
        state=draw.normal(size=(len(at), 5)).astype(np.float32),
    )
    with Store(tmp_path).draft(Address("labels", {}, (("teacher", "t"), ("domain", "d")))) as draft:
        for number, rows in enumerate(np.array_split(np.arange(len(at)), 2)):
            write_part(draft, number, block.take(rows), corpus, {})
        artifact = draft.commit()
    return [artifact.path / name for name in part_names(artifact)], block


def assert_read(items, logprobs, state, block: LabelBlock) -> None:
    for found, written in ((items, block.items), (logprobs, block.logprobs), (state, block.state)):
        matrix = np.array([np.asarray(row) for row in found])
        assert matrix.dtype == written.dtype
        np.testing.assert_array_equal(matrix, written)


def test_duckdb_reads_them(stored):
    paths, block = stored
    glob = str(paths[0].with_name("part-*.parquet"))
    with duckdb.connect() as connection:
        types = connection.execute(f"select typeof(items), typeof(logprobs) from '{glob}' limit 1").fetchone()
        assert types == ("INTEGER[]", "FLOAT[]")
        found = connection.execute(
            f"select items, logprobs, state from '{glob}' order by user_id, position"
        ).fetchnumpy()
        (mass,) = connection.execute(f"select sum(list_sum(logprobs)) from '{glob}'").fetchone()
    assert_read(found["items"], found["logprobs"], found["state"], block)
    assert mass == pytest.approx(block.logprobs.astype(np.float64).sum())


def test_pandas_reads_them(stored):
    paths, block = stored
    frame = pd.concat([pd.read_parquet(path) for path in paths])
    assert_read(frame["items"], frame["logprobs"], frame["state"], block)


def test_polars_reads_them(stored):
    paths, block = stored
    frame = pl.read_parquet(paths)
    assert frame.schema["items"] == pl.List(pl.Int32)
    assert frame.schema["logprobs"] == pl.List(pl.Float32)
    assert_read(frame["items"], frame["logprobs"], frame["state"], block)
