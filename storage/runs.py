"""Trained students: weights, configuration, metrics, the rank of every held-out target, the training curve."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus
from ckd.storage.draft import Draft
from ckd.storage.parquet import read_table, write_table

WEIGHTS, CONFIG = "model.safetensors", "config.json"
METRICS, RANKS = "metrics.parquet", "ranks.parquet"

Ranks = Mapping[str, npt.NDArray[np.int32]]
"""Split to int32 [n_users]: the rank of each user's held-out target, 1 is best."""


def write_config(draft: Draft, config: Mapping[str, Any]) -> None:
    """Write what is needed to build the student again."""
    text = json.dumps(config, indent=1, sort_keys=True) + "\n"
    draft.add(CONFIG, lambda path: _write_text(path, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def read_config(run: Artifact) -> dict[str, Any]:
    """Return what the student was built with: ``student``, its settings, and ``domains``, in its order."""
    config: dict[str, Any] = json.loads(run.verified(CONFIG).read_text(encoding="utf-8"))
    return config


def write_metrics(draft: Draft, metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Write metrics, ``{domain: {split: {name: value}}}``, in long form."""
    rows = [
        (domain, split, name, value)
        for domain, splits in metrics.items()
        for split, values in splits.items()
        for name, value in values.items()
    ]
    domain, split, name, value = zip(*rows, strict=True)
    table = pa.table({"domain": domain, "split": split, "metric": name, "value": pa.array(value, pa.float64())})
    draft.add(METRICS, lambda path: write_table(table, path), rows=table.num_rows)


def write_ranks(draft: Draft, ranks: Mapping[str, Ranks], corpora: Mapping[str, Corpus]) -> None:
    """Write the rank of every held-out target of every domain, for paired tests and for questions in SQL."""
    types = {corpus.user_ids.type for corpus in corpora.values()}
    kind = types.pop() if len(types) == 1 else pa.string()
    tables = [
        pa.table(
            {
                "domain": [domain] * corpora[domain].n_users,
                "user_id": corpora[domain].user_ids.cast(kind),
                "split": [split] * corpora[domain].n_users,
                "rank": pa.array(values),
            }
        )
        for domain, splits in ranks.items()
        for split, values in splits.items()
    ]
    table = pa.concat_tables(tables)
    draft.add(RANKS, lambda path: write_table(table, path), rows=table.num_rows)


def domains_of(run: Artifact) -> list[str]:
    """Return the domains of a student, in its order."""
    if "domain" in run.inputs:  # format 1
        return [run.inputs["domain"]]
    return list(run.inputs["domains"])


def corpora_of(run: Artifact) -> dict[str, str]:
    """Return the key of each domain's corpus, in the student's order of domains."""
    if "domain" in run.inputs:  # format 1
        return {run.inputs["domain"]: run.inputs["corpus"]}
    return {domain: run.inputs["corpora"][domain] for domain in run.inputs["domains"]}


def teachers_of(run: Artifact) -> list[str]:
    """Return the names of the teachers that a student learned from, in any of its domains, sorted."""
    labels = run.inputs.get("labels") or {}
    if "domain" in run.inputs:  # format 1
        return sorted(labels)
    return sorted({name for by_teacher in labels.values() for name in by_teacher})


def called(run: Artifact) -> str:
    """Return how a run is told from others: its short key and what it is."""
    kind = "distilled" if run.inputs["distilled"] else "plain"
    return f"{run.path.name} ({run.inputs['student']}, {' + '.join(domains_of(run))}, {kind})"


def read_metrics(run: Artifact, domain: str) -> dict[str, dict[str, float]]:
    """Return ``{split: {name: value}}`` of one domain."""
    metrics: dict[str, dict[str, float]] = {}
    for row in _of_domain(run, METRICS, domain).to_pylist():
        metrics.setdefault(row["split"], {})[row["metric"]] = row["value"]
    return metrics


def read_ranks(run: Artifact, domain: str, split: str) -> npt.NDArray[np.int32]:
    """Return the ranks of one domain and split, int32 [n_users], in order of user code."""
    table = _of_domain(run, RANKS, domain)
    return table.filter(pc.equal(table["split"], split))["rank"].to_numpy()


def _of_domain(run: Artifact, name: str, domain: str) -> pa.Table:
    table = read_table(run.verified(name))
    if "domain" not in table.column_names:  # format 1, of one domain
        return table
    return table.filter(pc.equal(table["domain"], domain))
