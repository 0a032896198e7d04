"""The SQL of the views.

Domain and teacher are constants, one branch of UNION ALL per artifact, so that ``where teacher = ... and
domain = ...`` drops whole branches while planning. ``unnest`` stands in a SELECT list, never in FROM:
DuckDB 2.0 pushes filters below the first, to the scan, but not below the second.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pyarrow as pa

from ckd.storage.artifact import Artifact
from ckd.storage.runs import domains_of, teachers_of
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
    return "\nunion all\n".join(selects) or _nothing(columns)


def _nothing(columns: Mapping[str, str]) -> str:
    return f"select {', '.join(f'null::{kind} as {name}' for name, kind in columns.items())} where false"


def _select(branch: Branch, columns: Mapping[str, str]) -> str:
    values = ", ".join(f"({_value(branch, name)})::{kind} as {name}" for name, kind in columns.items())
    return f"select {values} from {_scan(branch)}"


def _scan(branch: Branch) -> str:
    return f"read_parquet({listed(branch.files)}, filename = true, hive_partitioning = false)"


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

_SHARED = "len(list_filter({one}, lambda item: list_contains({other}, item)))"
_OVERLAP = """list_sum(list_transform(items, lambda item, n:
        least(exp(logprobs[n]), coalesce(exp(other_logprobs[list_position(other_items, item)]), 0))))"""

AGREEMENT = "agreement.parquet"
KEPT = (
    "user_id",
    "position",
    "split",
    "shared_10",
    "overlap",
    "jaccard",
    "target",
    "target_rank",
    "other_target_rank",
)
"""Columns of what is kept of the view ``agreement``; the others are constants, or follow from them."""


def closer(teacher: str, other: str) -> str:
    """Return the SQL of the column ``closer`` from that of the two names."""
    return f"""case when target_rank < other_target_rank then {teacher}
        when other_target_rank < target_rank then {other} else 'tie' end"""


_AGREEMENT = f"""
select domain, user_id, position, split, teacher, other, shared_10,
    least(overlap, 1) as overlap, common / (len(items) + len(other_items) - common) as jaccard,
    target, target_rank, other_target_rank, {closer("teacher", "other")} as closer
from (
    select *, {_SHARED.format(one="items", other="other_items")} as common, {_OVERLAP} as overlap,
        {_SHARED.format(one="best[:len(other_best)]", other="other_best[:len(best)]")}
            / least(len(best), len(other_best)) as shared_10
    from pairs
)"""


def agreement(labels: Iterable[Branch], kept: Iterable[Branch], types: Mapping[str, str]) -> str:
    """Return the SQL of the view ``agreement``: a branch per domain and two of its teachers, ordered by name.

    Of a pair whose agreement is not kept, the lists are compared as lists, so that a query pays only for the measures
    that it asks for: the join of unnested items that would replace it could not be left out. The time grows with the
    square of k; measured, ``overlap`` takes two thirds of that join's time at k = 100, and a third more than it at
    k = 500. What is kept is read as it is.

    Args:
        labels: the branches of the view ``labels``; their constants name teacher and domain.
        kept: a branch per pair whose agreement is kept; its constants name domain, teacher and other.
        types: what the identifier types stand for.
    """
    kept = list(kept)
    found = {tuple(branch.constants[name] for name in ("domain", "teacher", "other")) for branch in kept}
    columns = {name: types.get(column.type, column.type) for name, column in VIEWS["agreement"].columns.items()}
    ordered = sorted(labels, key=lambda branch: str(branch.constants["teacher"]))
    pairs = [
        _pair(one, other, columns)
        for one, other in combinations(ordered, 2)
        if (domain := one.constants["domain"]) == other.constants["domain"]
        and (domain, one.constants["teacher"], other.constants["teacher"]) not in found
    ]
    if not pairs:
        return union("agreement", kept, types)
    computed = f"with pairs as not materialized ({' union all '.join(pairs)}){_AGREEMENT}"
    return f"{union('agreement', kept, types)} union all ({computed})" if kept else computed


def _pair(one: Branch, other: Branch, columns: Mapping[str, str]) -> str:
    # The split follows from user and position; it is a key so that a filter on it reaches both scans. Identifiers are
    # cast before the join for the same reason: DuckDB carries no filter over to the other side of a cast key.
    sides = [
        f"""(
            select (user_id)::{columns["user_id"]} as user_id, position, split, {target}items[:10] as {prefix}best,
                items as {prefix}items, logprobs as {prefix}logprobs, target_rank as {prefix}target_rank
            from {_scan(branch)}
        )"""
        for branch, prefix, target in (
            (one, "", f"(target)::{columns['target']} as target, "),
            (other, "other_", ""),
        )
    ]
    constants = {
        "domain": one.constants["domain"],
        "teacher": one.constants["teacher"],
        "other": other.constants["teacher"],
    }
    names = ", ".join(f"{quoted(str(value))} as {name}" for name, value in constants.items())
    return f"select *, {names} from {' join '.join(sides)} using (user_id, position, split)"


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
select m.owner, r.student as name, m.run, m.domain, m.split, m.metric, m.value
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
        "domains": domains_of(run),
        **{name: inputs.get(name) for name in ("student", "seed", "distilled")},
        **{name: _setting(inputs, name) for name in ("alpha", "temperature")},
        "teachers": ", ".join(teachers_of(run)) or None,
        **{name: facts.get(name) for name in ("parameters", "epochs", "best_epoch")},
        "settings": _json({name: value for name, value in inputs.items() if name != "seed"}),
        "inputs": _json(inputs),
    }


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _setting(inputs: Mapping[str, Any], name: str) -> Any:
    """Return a setting of a run's distillation, or None; of an older run it stands at the top or in ``distill``."""
    # No other group: a domain or a student's own setting may have the same name.
    groups = [inputs.get("teaching") or {}, inputs.get("distill") or {}, inputs]
    return next((group[name] for group in groups if name in group), None)
