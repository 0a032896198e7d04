"""Trained students: weights, configuration, metrics, the rank of every held-out target, the training curve."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ckd.storage.artifact import Artifact, Draft
from ckd.storage.corpus import Corpus
from ckd.storage.files import write_text_durably
from ckd.storage.parquet import read_table, write_table

WEIGHTS, CONFIG = "model.safetensors", "config.json"
METRICS, RANKS = "metrics.parquet", "ranks.parquet"

Ranks = Mapping[str, npt.NDArray[np.int32]]
"""Split to int32 [n_users]: the rank of each user's held-out target, 1 is best."""


def write_config(draft: Draft, config: Mapping[str, Any]) -> None:
    """Write what is needed to build the student again."""
    text = json.dumps(config, indent=1, sort_keys=True) + "\n"
    draft.add(CONFIG, lambda path: write_text_durably(path, text))


def write_metrics(draft: Draft, metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Write metrics, ``{split: {name: value}}``, in long form."""
    rows = [(split, name, value) for split, values in metrics.items() for name, value in values.items()]
    split, name, value = zip(*rows, strict=True)
    table = pa.table({"split": split, "metric": name, "value": pa.array(value, pa.float64())})
    draft.add(METRICS, lambda path: write_table(table, path), rows=table.num_rows)


def write_ranks(draft: Draft, ranks: Ranks, corpus: Corpus) -> None:
    """Write the rank of every held-out target, for paired tests and for questions in SQL."""
    tables = [
        pa.table({"user_id": corpus.user_ids, "split": [split] * corpus.n_users, "rank": pa.array(values)})
        for split, values in ranks.items()
    ]
    table = pa.concat_tables(tables)
    draft.add(RANKS, lambda path: write_table(table, path), rows=table.num_rows)


def read_metrics(run: Artifact) -> dict[str, dict[str, float]]:
    """Return ``{split: {name: value}}``."""
    metrics: dict[str, dict[str, float]] = {}
    for row in read_table(run.verified(METRICS)).to_pylist():
        metrics.setdefault(row["split"], {})[row["metric"]] = row["value"]
    return metrics


def read_ranks(run: Artifact, split: str) -> npt.NDArray[np.int32]:
    """Return the ranks of one split, int32 [n_users], in order of user code."""
    table = read_table(run.verified(RANKS))
    return table.filter(pc.equal(table["split"], split))["rank"].to_numpy()
