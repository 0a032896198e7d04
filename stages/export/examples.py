"""The README of an export: what is in the folder, and a program that runs in it."""

from collections.abc import Sequence

from ckd.stages.export.programs import (
    BEST,
    INDEX,
    INDEX_OF_USERS,
    ONNX,
    ONNX_OF_USERS,
    SCORES,
    WEIGHTS,
    WEIGHTS_OF_USERS,
)
from ckd.stages.export.student import Exported
from ckd.storage.runs import domains_of

_SHOWN = 3


def onnx_example(found: Exported, k: int | None, outputs: Sequence[str]) -> str:
    """Return the README of an ONNX model."""
    meaning = {
        "scores": "`scores` float32 [batch, n_items]: of every item, in order of code; higher is better",
        "best_items": f"`best_items` int64 [batch, {k}]: codes of the {k} best items, best first",
        "best_scores": f"`best_scores` float32 [batch, {k}]: their scores",
        "query": "`query` float32 [batch, width]: the vector whose dot products with the items' vectors are the scores",
    }
    rest = SCORES if k is None else BEST
    of_users = [
        "in: `users` int64 [batch]: their codes",
        f"in: `items` int64 [batch, length]: codes of {_BEHIND}, right-padded with 0; length at least 1",
        "in: `lengths` int64 [batch]: how many of these, from 0 on",
    ]
    of_histories = [
        "in: `items` int64 [batch, length]: codes of each history, oldest first, right-padded with 0; length at most "
        f"{found.student.max_length}: of longer histories give the last items",
        "in: `lengths` int64 [batch]: items of each history, at least 1",
    ]
    return _page(
        found,
        f"`model.onnx`: the student. `items.parquet`: code, ID and title of each item. {_users(found)}`config.json`: "
        "shapes, settings and test metrics of the run.",
        [*(of_users if found.of_users else of_histories), *(f"out: {meaning[name]}" for name in outputs)],
        ONNX_OF_USERS.format(rest=rest) if found.of_users else ONNX.format(length=_length(found), rest=rest),
    )


def weights_example(found: Exported) -> str:
    """Return the README of weights."""
    what = "the vectors of users and items" if found.of_users else "the weights"
    return _page(
        found,
        f"`model.safetensors`: {what}. {_items(found)}: the items. {_users(found)}`config.json`: settings and test "
        "metrics of the run, and the files' digests.",
        [_arguments(found)],
        WEIGHTS_OF_USERS if found.of_users else WEIGHTS.format(length=_length(found), domain=_domain(found)),
    )


def index_example(found: Exported) -> str:
    """Return the README of an index."""
    return _page(
        found,
        "`index.faiss`: the items' vectors, numbered by code; the score is the inner product. `model.safetensors`: the "
        f"student, which makes the queries. {_items(found)}: the items. {_users(found)}`config.json`: settings and "
        "test metrics of the run, and the measured recall of the index.",
        [_arguments(found)],
        INDEX_OF_USERS if found.of_users else INDEX.format(length=_length(found), domain=_domain(found)),
    )


_BEHIND = "items that come behind all others whatever their scores, such as those that the user has"


def _arguments(found: Exported) -> str:
    if found.of_users:
        return f"users and items are given by their codes, and beside each user {_BEHIND}; lengths says how many"
    return (
        f"histories are item codes, oldest first, right-padded; at most the last {found.student.max_length} items of "
        "each, at least 1"
    )


def _users(found: Exported) -> str:
    return "`users.parquet`: code and ID of each user. " if found.of_users else ""


def _length(found: Exported) -> int:
    return min(_SHOWN, found.student.max_length, found.domain.corpus.n_items)


def _items(found: Exported) -> str:
    return "`items.parquet`" if found.of_users or len(domains_of(found.run)) == 1 else "`items-<domain>.parquet`"


def _domain(found: Exported) -> str:
    return "" if len(domains_of(found.run)) == 1 else f', "{found.name}"'


def _page(found: Exported, files: str, facts: Sequence[str], program: str) -> str:
    title = f"# {found.run.inputs['student']}, {found.name}"
    points = "\n".join(f"- {fact}" for fact in facts)
    return f"{title}\n\nRun {found.run.key}.\n\n{files}\n\n{points}\n\n```python\n{program}```\n"
