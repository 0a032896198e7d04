"""An index of a student's item vectors, and how much of the exact answer it finds.

It finds the items of the best scores alone: those that a student of users puts behind all others are among them, so ask
it for as many more and leave them out.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ckd.stages.export.examples import index_example
from ckd.stages.export.folder import README, write_config
from ckd.stages.export.student import Exported, Users, sample, subject_of
from ckd.stages.export.weights import add_student, weights_config
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError

INDEX = "index.faiss"
FLAT = "Flat"
QUERIES = 1_000
"""Users whose histories recall is measured on, at most."""


@dataclass(frozen=True)
class Recall:
    """Share of the exact ``k`` best items that the index finds, over real queries."""

    k: int
    queries: int
    share: float


def write_index(
    found: Exported, corpora: Mapping[str, Corpus], folder: Path, factory: str, search: str | None, k: int
) -> Recall:
    """Write the index of a domain beside the weights that make its queries; return its recall.

    Args:
        found: the student.
        corpora: domain to its corpus, of all domains of the run, in its order.
        folder: empty.
        factory: as FAISS's ``index_factory`` reads it.
        search: as its ``ParameterSpace`` reads it, ``nprobe=8``; kept in the index.
        k: items of each list that recall is measured on.

    Raises:
        UserError: the student does not score by dot product, or FAISS refuses the index.
    """
    index, recall = build(found, factory, search, k)
    add_student(found, corpora, folder)
    import faiss

    # Not write_index: what it raises on a full disk is no OSError.
    (folder / INDEX).write_bytes(faiss.serialize_index(index).tobytes())
    (folder / README).write_text(index_example(found), encoding="utf-8")
    measured = {"k": recall.k, "queries": recall.queries, "recall": recall.share}
    how = {"factory": factory, "search": search, "metric": "inner product", "width": index.d}
    write_config(folder, {**weights_config("faiss", found, corpora), "index": how, "recall": measured})
    return recall


def build(found: Exported, factory: str, search: str | None, k: int) -> tuple[Any, Recall]:
    """Return the index and its recall; see :func:`write_index`."""
    if found.vectors is None:
        raise UserError(f"{subject_of(found.run)} does not score by a dot product, which is all that an index searches")
    import faiss

    faiss.omp_set_num_threads(1)  # several threads build another graph each time
    with torch.inference_mode():
        vectors = np.ascontiguousarray(found.vectors.item_vectors().float().numpy())
        queries = queries_of(found, sample(found.domain, QUERIES))
    with _refused(f"--index {factory}", f"{len(vectors):,} items"):
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add(vectors)
    how = f"--index {factory}" if search is None else f"--search {search}"
    with _refused(how, f"{factory} of {len(vectors):,} items"):
        if search is not None:
            parameters: Any = faiss.ParameterSpace()  # its stub knows one overload only
            parameters.set_index_parameters(index, search)
        answers = index.search(np.ascontiguousarray(queries), min(k, len(vectors)))[1]
    return index, _recall(queries, vectors, answers)


def queries_of(found: Exported, users: Users) -> npt.NDArray[np.float32]:
    """Return the vectors whose dot products with the items' are the scores of some users, float32 [n, d]."""
    with torch.inference_mode():
        query = found.serving.answer(**found.given(users))[1]
    if query is None:
        raise ValueError(f"{subject_of(found.run)} does not score by a dot product")
    return query.float().numpy()


@contextmanager
def _refused(option: str, what: str) -> Iterator[None]:
    """Name the option that FAISS cannot do as asked, and what it cannot be done for."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"{option}: FAISS refuses it for {what}: {_reason(error)}") from error


def _recall(queries: np.ndarray[Any, Any], vectors: np.ndarray[Any, Any], answers: np.ndarray[Any, Any]) -> Recall:
    """Compare with a full search; an item as good as the k-th best counts as found, whichever of the equals it is."""
    k = answers.shape[1]
    hits = 0
    for query, answer in zip(queries, answers, strict=True):
        scores = vectors @ query
        least = np.partition(scores, -k)[-k]
        given = scores[np.unique(answer[answer >= 0])]
        hits += int((given >= least - _ROUNDING * max(1.0, abs(float(least)))).sum())
    return Recall(k, len(queries), hits / (k * len(queries)))


_ROUNDING = 1e-6
"""FAISS sums in another order than a matrix product."""


def _reason(error: BaseException) -> str:
    """Return what FAISS says, without the place in its source."""
    text = " ".join(str(error).split())
    return _PLACE.sub("", text) or type(error).__name__


_PLACE = re.compile(r"^Error in .*\.(?:cpp|h):\d+: (?:Error: )?")
