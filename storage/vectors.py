"""One vector per item, as Parquet: item text vectors and the item vectors of teachers."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ckd.storage.artifact import Artifact
from ckd.storage.draft import Draft
from ckd.storage.parquet import read_table, write_table

VECTORS = "vectors.parquet"
_ROW_GROUP = 4_096


def vectors_name(fold: int = 0) -> str:
    """Return the file name of item vectors: of labels out of fold, each fold's teacher has its own."""
    return f"vectors-fold-{fold}.parquet" if fold else VECTORS


def write_vectors(draft: Draft, vectors: npt.NDArray[np.float32], fold: int = 0) -> None:
    """Write float32 [n_items, d], row = item code, exactly.

    Args:
        draft: of the artifact.
        vectors: what is written.
        fold: number of the fold whose teacher they are of; 0 for a teacher of all users.
    """
    item = pa.array(np.arange(len(vectors), dtype=np.int32))
    table = pa.table({"item": item, "vector": fixed_lists(vectors)})
    draft.add(vectors_name(fold), lambda path: write_table(table, path, _ROW_GROUP), rows=len(vectors))


def read_vectors(artifact: Artifact, fold: int = 0) -> npt.NDArray[np.float32] | None:
    """Load float32 [n_items, d], or None where the artifact holds no such vectors; ``fold`` as in writing.

    Raises:
        DamagedArtifact: the file's bytes differ from what was written.
    """
    name = vectors_name(fold)
    if name not in artifact.files:
        return None
    return matrix(read_table(artifact.verified(name), ["vector"])["vector"])


def fixed_lists(values: npt.NDArray[Any]) -> pa.FixedSizeListArray:
    """Return a matrix [n, d] as an arrow column of n lists of d numbers."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])


def matrix(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return an arrow column of n lists of one length d as a matrix [n, d]."""
    # Chunk by chunk: as one arrow array, more than 2^31 numbers would overflow the offsets of a list.
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    if not chunks:
        return np.empty((0, 0), pa.array([], column.type.value_type).to_numpy().dtype)
    flat = (chunk.flatten().to_numpy(zero_copy_only=False).reshape(len(chunk), -1) for chunk in chunks)
    return np.concatenate(list(flat))
