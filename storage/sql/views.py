"""The SQL of the views.

Domain and teacher are constants, one branch of UNION ALL per artifact, so that ``where teacher = ... and
domain = ...`` drops whole branches while planning. ``unnest`` stands in a SELECT list, never in FROM:
DuckDB 2.0 pushes filters below the first, to the scan, but not below the second.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ckd.storage.artifact import Artifact
from ckd.storage.sql.schema import VIEWS


@dataclass(frozen=True)
class Branch:
    """Files of one schema, and the constants and expressions that complete their rows."""

    files: tuple[str, ...]
    columns: frozenset[str]
    constants: Mapping[str, str | None]
    expressions: Mapping[str, str]


def quoted(text: str) -> str:
    """Return an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def listed(texts: Iterable[str]) -> str:
    """Return an SQL list of string literals."""
    return f"[{', '.join(map(quoted, texts))}]"


def union(view: str, branches: Iterable[Branch], types: Mapping[str, str]) -> str:
    """Return the SQL of a view over branches; without any, an empty table of the same columns.

    Args:
        view: its name in ``VIEWS``, which gives columns and types.
        branches: where the rows come from; a column that a branch lacks is null.
        types: what the identifier types stand for.
    """
    columns = {name: types.get(column.type, column.type) for name, column in VIEWS[view].columns.items()}
    selects = [_select(branch, columns) for branch in branches]
    empty = ", ".join(f"null::{kind} as {name}" for name, kind in columns.items())
    return "\nunion all\n".join(selects) or f"select {empty} where false"


def _select(branch: Branch, columns: Mapping[str, str]) -> str:
    values = ", ".join(f"({_value(branch, name)})::{kind} as {name}" for name, kind in columns.items())
    options = "filename = true, hive_partitioning = false"
    return f"select {values} from read_parquet({listed(branch.files)}, {options})"


def _value(branch: Branch, name: str) -> str:
    if name in branch.constants:
        value = branch.constants[name]
        return "null" if value is None else quoted(value)
    if name in branch.expressions:
        return branch.expressions[name]
    return name if name in branch.columns else "null"


RUN_OF_FILE = "string_split(filename, '/')[-2]"
"""DuckDB evaluates this while planning, so a filter on the run leaves only that run's file."""

INTERACTIONS = """
select domain, user_id, position, item, timestamp,
    case position when length then 'test' when length - 1 then 'valid' else 'train' end as split
from (
    select domain, user_id, length, unnest(range(1, length + 1))::INTEGER as position,
        unnest(items) as item, unnest(timestamps) as timestamp
    from sequences
)"""

LABEL_ITEMS = """
select l.teacher, l.domain, l.user_id, l.position, l.split, l.rank, l.item, i.item_id, i.title, l.logprob
from (
    select teacher, domain, user_id, position, split, unnest(range(1, len(items) + 1))::INTEGER as rank,
        unnest(items) as item, unnest(logprobs) as logprob
    from labels
) l left join items i on i.domain = l.domain and i.item = l.item"""

_MEASURES = {
    "recall@10": "avg((target_rank <= 10)::DOUBLE)",
    "recall@50": "avg((target_rank <= 50)::DOUBLE)",
    "ndcg@10": "avg(if(target_rank <= 10, 1 / log2(1 + target_rank), 0))",
    "ndcg@50": "avg(if(target_rank <= 50, 1 / log2(1 + target_rank), 0))",
    "mrr": "avg(1 / target_rank)",
}


def metrics(students: str) -> str:
    """Return the SQL of the view ``metrics`` from the SQL of the students' part of it."""
    measures = ", ".join(f'{formula} as "{name}"' for name, formula in _MEASURES.items())
    names = ", ".join(f'"{name}"' for name in _MEASURES)
    return f"""
select m.owner, r.student as name, m.run, r.domain, m.split, m.metric, m.value
from ({students}) m join runs r using (run)
union all
select 'teacher', teacher, null, domain, split, metric, value
from (
    select teacher, domain, split, {measures}
    from labels where split in ('valid', 'test') group by teacher, domain, split
) unpivot (value for metric in ({names}))"""


def runs_table(runs: Iterable[Artifact]) -> pa.Table:
    """Return the rows of the view ``runs``; it comes from manifests, not from Parquet."""
    columns = VIEWS["runs"].columns
    rows = [_run_row(run) for run in runs]
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in columns})


def _run_row(run: Artifact) -> dict[str, Any]:
    inputs, facts = run.inputs, run.facts
    return {
        "run": run.path.name,
        **{name: inputs.get(name) for name in ("student", "domain", "seed", "distilled")},
        **{name: _setting(inputs, name) for name in ("alpha", "temperature")},
        **{name: facts.get(name) for name in ("parameters", "epochs", "best_epoch")},
        "inputs": json.dumps(inputs, sort_keys=True, ensure_ascii=False),
    }


def _setting(inputs: Mapping[str, Any], name: str) -> Any:
    """Return a setting that a run has at the top of its inputs or in a group of settings, or None."""
    groups = [inputs, *(group for group in inputs.values() if isinstance(group, Mapping))]
    return next((group[name] for group in groups if name in group), None)
