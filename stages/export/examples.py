"""The README of an export: what is in the folder, and a program of ten lines that runs in it."""

from collections.abc import Sequence

from ckd.stages.export.student import Exported
from ckd.storage.runs import domains_of

_SHOWN = 3

_ONNX = """\
import numpy as np
import onnxruntime
import pyarrow.parquet as pq

ids = pq.read_table("items.parquet")["item_id"].to_pylist()  # in order of code
session = onnxruntime.InferenceSession("model.onnx")
history = ids[:{length}]  # oldest first
codes = np.array([[ids.index(item) for item in history]])
given = {{"items": codes, "lengths": np.array([len(history)])}}
{rest}
"""
_SCORES = """\
(scores,) = session.run(["scores"], given)
for code in np.argsort(-scores[0], kind="stable")[:5]:
    print(ids[code], scores[0, code])"""
_BEST = """\
best, scores = session.run(["best_items", "best_scores"], given)
for code, score in zip(best[0], scores[0]):
    print(ids[code], score)"""

_WEIGHTS = """\
import torch
from ckd.stages.export.weights import load_export

student, items = load_export("."{domain})  # digests are checked
ids = items["item_id"].to_pylist()  # in order of code
history = ids[:{length}]  # oldest first
codes = torch.tensor([[ids.index(item) for item in history]])
with torch.inference_mode():
    scores = student(codes, torch.tensor([len(history)]))[0]
for code in scores.argsort(descending=True, stable=True)[:5].tolist():
    print(ids[code], float(scores[code]))
"""

_INDEX = """\
import faiss
import torch
from ckd.stages.export.weights import load_export

student, items = load_export("."{domain})  # digests are checked
ids = items["item_id"].to_pylist()  # in order of code
history = ids[:{length}]  # oldest first
codes = torch.tensor([[ids.index(item) for item in history]])
with torch.inference_mode():
    query = student.query(codes, torch.tensor([len(history)])).numpy()
scores, best = faiss.read_index("index.faiss").search(query, 5)
for code, score in zip(best[0], scores[0]):
    print(ids[code], score)
"""


def onnx_example(found: Exported, k: int | None, outputs: Sequence[str]) -> str:
    """Return the README of an ONNX model."""
    meaning = {
        "scores": "`scores` float32 [batch, n_items]: of every item, in order of code; higher is better",
        "best_items": f"`best_items` int64 [batch, {k}]: codes of the {k} best items, best first",
        "best_scores": f"`best_scores` float32 [batch, {k}]: their scores",
        "query": "`query` float32 [batch, width]: the vector whose dot products with the items' vectors are the scores",
    }
    program = _ONNX.format(length=_length(found), rest=_SCORES if k is None else _BEST)
    return _page(
        found,
        "`model.onnx`: the student. `items.parquet`: code, ID and title of each item. `config.json`: shapes, settings "
        "and test metrics of the run.",
        [
            "in: `items` int64 [batch, length]: codes of each history, oldest first, right-padded with 0; length at "
            f"most {found.student.max_length}: of longer histories give the last items",
            "in: `lengths` int64 [batch]: items of each history, at least 1",
            *(f"out: {meaning[name]}" for name in outputs),
        ],
        program,
    )


def weights_example(found: Exported) -> str:
    """Return the README of weights."""
    return _page(
        found,
        f"`model.safetensors`: the weights. {_items(found)}: the items. `config.json`: settings and test metrics of "
        "the run, and the files' digests.",
        [_histories(found)],
        _WEIGHTS.format(length=_length(found), domain=_domain(found)),
    )


def index_example(found: Exported) -> str:
    """Return the README of an index."""
    return _page(
        found,
        "`index.faiss`: the items' vectors, numbered by code; the score is the inner product. `model.safetensors`: the "
        f"student, which makes the queries. {_items(found)}: the items. `config.json`: settings and test metrics of "
        "the run, and the measured recall of the index.",
        [_histories(found)],
        _INDEX.format(length=_length(found), domain=_domain(found)),
    )


def _histories(found: Exported) -> str:
    return (
        f"histories are item codes, oldest first, right-padded; at most the last {found.student.max_length} items of "
        "each, at least 1"
    )


def _length(found: Exported) -> int:
    return min(_SHOWN, found.student.max_length, found.domain.corpus.n_items)


def _items(found: Exported) -> str:
    return "`items.parquet`" if len(domains_of(found.run)) == 1 else "`items-<domain>.parquet`"


def _domain(found: Exported) -> str:
    return "" if len(domains_of(found.run)) == 1 else f', "{found.name}"'


def _page(found: Exported, files: str, facts: Sequence[str], program: str) -> str:
    title = f"# {found.run.inputs['student']}, {found.name}"
    points = "\n".join(f"- {fact}" for fact in facts)
    return f"{title}\n\nRun {found.run.key}.\n\n{files}\n\n{points}\n\n```python\n{program}```\n"
