"""What a user may ask: one statement, and nothing in it that is not a question.

DuckDB's statement type does not decide this: ``WITH x AS (COPY ... TO ...) SELECT`` and
``json_execute_serialized_sql`` are SELECTs to it, and both write. So the parsed tree is searched.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import duckdb

from ckd.storage.errors import DamagedArtifact, UserError
from ckd.storage.sql.schema import VIEWS

_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_TABLE_FUNCTIONS = frozenset(
    {
        "range",
        "generate_series",
        "unnest",
        "repeat",
        "histogram",
        "histogram_values",
        "json_each",
        "json_tree",
    }
    | {"duckdb_columns", "duckdb_functions", "duckdb_views"}
)
_ONE_QUESTION = "only one question is answered at a time: a SELECT, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN"
_GAP = r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*"
_EXPLAIN = re.compile(rf"{_GAP}explain\b(?P<analyze>{_GAP}analyze\b)?", re.IGNORECASE | re.DOTALL)


def checked(connection: duckdb.DuckDBPyConnection, query: str) -> str:
    """Return the statement to run for what a user typed.

    Raises:
        UserError: it is not exactly one statement, it does not parse, or it does more than ask.
    """
    statements = _statements(query)
    if len(statements) != 1:
        raise UserError(f"{_ONE_QUESTION}; this text holds {len(statements) or 'none'}")
    statement = statements[0]
    if statement.type == duckdb.StatementType.EXPLAIN:
        return _checked_explain(connection, statement.query)
    if statement.type != duckdb.StatementType.SELECT:
        raise UserError(f"{_ONE_QUESTION}; this is a statement of type {statement.type.name}{_hint(query)}")
    _check_tree(connection, statement.query)
    return str(statement.query)


def _statements(query: str) -> list[duckdb.Statement]:
    try:
        return duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise user_error(error) from None


def _checked_explain(connection: duckdb.DuckDBPyConnection, query: str) -> str:
    # What is run is put together anew from the checked inner statement: reading the start of the text in
    # another way than DuckDB does can then refuse a question, but never let anything else through.
    start = _EXPLAIN.match(query)
    if start is None:
        raise UserError("write EXPLAIN or EXPLAIN ANALYZE, then a SELECT")
    inner = query[start.end() :]
    if re.match(r"\s*\(\s*(?:analyze|format)\b", inner, re.IGNORECASE):
        raise UserError("EXPLAIN takes no options here but ANALYZE, without brackets")
    statements = _statements(inner)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise UserError("EXPLAIN and EXPLAIN ANALYZE take one SELECT")
    _check_tree(connection, inner)
    return f"explain {'analyze ' if start['analyze'] else ''}{inner}"


def _hint(query: str) -> str:
    return "; list the values of PIVOT: ON column IN (...)" if re.search(r"\bpivot\b", query, re.I) else ""


def _check_tree(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    rows = connection.execute("select json_serialize_sql($1::VARCHAR)", [query]).fetchall()
    tree = json.loads(rows[0][0])
    if tree["error"]:
        raise UserError(f"{_ONE_QUESTION}; this one cannot be checked: {tree.get('error_message', 'no tree')}")
    for node in _nodes(tree):
        kind = node["type"]
        if kind.endswith("_NODE") and kind not in _NODES:
            raise UserError(f"{_ONE_QUESTION}; a part of this one does more than ask ({kind.split('_')[0]})")
        if kind == "TABLE_FUNCTION":
            _check_table_function(node["function"]["function_name"])


def _check_table_function(name: str) -> None:
    if name.lower() not in _TABLE_FUNCTIONS:
        raise UserError(f"the table function {name} is not available here; ask the views: {', '.join(VIEWS)}")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            pending.extend(node.values())
            if isinstance(node.get("type"), str):
                yield node
        elif isinstance(node, list):
            pending.extend(node)


def user_error(error: Exception) -> UserError:
    """Return DuckDB's complaint as one line: without its picture of the query, with what it suggests."""
    if isinstance(error, duckdb.OutOfMemoryException | MemoryError):
        return UserError(
            "SQL: the question needs more memory than it may hold; ask for less at a time, or give it more (--memory)"
        )
    text = re.split(r"\n+LINE \d+:", str(error))[0]
    damage = re.search(rf"{DamagedArtifact.__name__}: (.*)", text)
    if damage:
        return DamagedArtifact(damage[1])
    text = re.sub(r"^(?:\w+ )*Error: ", "", text)
    missing = re.match(r"Table with name (.*?) does not exist!", text)
    if missing:
        likely = [name for name in re.findall(r'Did you mean "(?:\w+\.)*(\w+)', text) if name in VIEWS]
        meant = f" (did you mean {likely[0]}?)" if likely else ""
        return UserError(f"SQL: there is no view {missing[1]}{meant}; the views are {', '.join(VIEWS)}")
    line = " ".join(text.split())
    return UserError(f"SQL: {line if len(line) <= _LONGEST else line[:_LONGEST] + ' ...'}")


_LONGEST = 600
"""DuckDB lists every overload of a function that was given wrong arguments."""
