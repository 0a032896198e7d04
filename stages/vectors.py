"""Item text vectors that were made elsewhere, brought into the order of a corpus.

:mod:`ckd.stages.vector_files` says which files there are and how their rows are named.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ckd.stages.atomic_files import read_index
from ckd.stages.vector_files import IDS_ENDING, NUMPY, PARQUET, vector_files
from ckd.storage.errors import UserError
from ckd.storage.vectors import matrix

Float32s = npt.NDArray[np.float32]


def read_item_vectors(path: Path, item_ids: pa.Array | pa.ChunkedArray) -> Float32s:
    """Return the vectors of items, float32 [len(item_ids), p]; the file may have more items.

    Args:
        path: a file that :func:`~ckd.stages.vector_files.vector_files` knows.
        item_ids: the items wanted, string or int64, distinct; of a corpus, ``items["item_id"]``.

    Raises:
        UserError: a file is missing, unreadable or of another form, an item has no vector or several, or a vector holds
            what is no finite number in float32.
    """
    _, *naming = vector_files(path)
    wanted = item_ids.cast(pa.large_string())
    if isinstance(wanted, pa.ChunkedArray):
        wanted = wanted.combine_chunks()
    names = _row_names(naming[0]) if naming else None
    if path.suffix == PARQUET:
        names, vectors = _read_parquet(path)
    elif path.suffix == NUMPY:
        vectors = _read_numpy(path)
        names = pa.array(map(str, range(len(vectors))), pa.large_string()) if names is None else names
    else:
        names = _rows_as_names(path, wanted) if names is None else names
        vectors = _read_features(path, len(names))
    if len(names) != len(vectors):
        raise UserError(
            f"{path} holds {len(vectors)} rows, but {naming[0].name} names {len(names)}; they must be as many"
        )
    numbered = path.suffix == NUMPY and not naming
    return _chosen(path, names, vectors, wanted, _UNNAMED.format(path.with_suffix(IDS_ENDING).name) if numbered else "")


_UNNAMED = "nothing names its rows, so they count as items 0, 1, 2, ...: put {} beside it, or "


def _chosen(
    path: Path, names: pa.Array, vectors: npt.NDArray[np.floating], wanted: pa.Array, advice: str = ""
) -> Float32s:
    rows = pc.index_in(wanted, value_set=names)
    if rows.null_count:
        first = wanted.filter(rows.is_null())[0].as_py()
        raise UserError(
            f"{path} has no vector of {rows.null_count} of the domain's {len(wanted)} items (first: {first!r}); "
            f"{advice}add them, or check that the item ids are the same"
        )
    with np.errstate(over="ignore"):
        chosen = vectors[rows.to_numpy()].astype(np.float32)
    broken = np.flatnonzero(~np.isfinite(chosen).all(axis=1))
    if len(broken):
        raise UserError(
            f"{path}: the vector of item {wanted[int(broken[0])].as_py()!r} holds NaN, infinity or a number too large "
            f"for float32, as do {len(broken)} of {len(wanted)}; make the vectors again"
        )
    return chosen


def _row_names(path: Path) -> pa.Array:
    """Return the item ids of a matrix' rows, distinct strings."""
    if path.name.endswith(IDS_ENDING):
        return _distinct(path, _ids_of_json(path))
    index = read_index(path)
    missing = next((str(row) for row in range(len(index)) if str(row) not in index), None)
    if missing is not None:
        raise UserError(
            f"{path} has {len(index)} lines and none for row {missing}; rows are numbered from 0, without gaps"
        )
    return pa.array([index[str(row)] for row in range(len(index))], pa.large_string())


def _ids_of_json(path: Path) -> pa.Array:
    try:
        ids = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); write it again") from error
    if not isinstance(ids, list) or not all(isinstance(one, str) or type(one) is int for one in ids):
        raise UserError(f"{path} must hold one list of item ids, strings or whole numbers, and nothing else")
    return pa.array(map(str, ids), pa.large_string())


def _rows_as_names(path: Path, wanted: pa.Array) -> pa.Array:
    """Return 0, 1, ... as names if the items are called so: a file of features does not say how many rows it has."""
    rows = pa.array(map(str, range(len(wanted))), pa.large_string())
    if pc.any(pc.index_in(wanted, value_set=rows).is_null()).as_py():
        raise UserError(
            f"{path}: nothing names its rows, and the item ids are not the numbers 0 to {len(wanted) - 1}; put "
            f"{path.with_suffix('.item2index').name} or {path.with_suffix(IDS_ENDING).name} beside it"
        )
    return rows


def _distinct(path: Path, ids: pa.Array) -> pa.Array:
    counts = pc.value_counts(ids)
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        raise UserError(f"{path} has item {repeated[0].as_py()!r} more than once; keep one of its rows")
    return ids


def _read_features(path: Path, rows: int) -> Float32s:
    """Return raw little-endian float32 [rows, p]; p follows from the size of the file."""
    size = path.stat().st_size
    if size == 0 or rows == 0 or size % (4 * rows):
        raise UserError(
            f"{path} holds {size} bytes, no multiple of {rows} rows of float32; is it whole, and of these items?"
        )
    try:
        return np.fromfile(path, dtype="<f4").reshape(rows, -1)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


def _read_numpy(path: Path) -> npt.NDArray[np.floating]:
    try:
        with path.open("rb") as stream:  # np.load would also open archives and, when asked, run pickles
            array = np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError, MemoryError) as error:  # a torn header may claim any shape
        raise UserError(f"{path} cannot be read as a numpy array ({error}); save it again with numpy.save") from error
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating) or array.shape[1] == 0:
        shown = "x".join(map(str, array.shape)) or "scalar"
        raise UserError(
            f"{path} holds {array.dtype} [{shown}]; a matrix of floating-point numbers, a row an item, is needed"
        )
    return array


def _read_parquet(path: Path) -> tuple[pa.Array, npt.NDArray[np.floating]]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
        table.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read as Parquet ({error}); write it again") from error
    for name in ("item_id", "vector"):
        if table.column_names.count(name) != 1:
            there = ", ".join(table.column_names) or "none"
            raise UserError(f"{path} must have one column {name!r}; it has {there}")
        if table[name].null_count:
            row = table[name].is_null().to_pylist().index(True) + 1
            raise UserError(f"{path}, row {row}: no {name}; remove the row or fill it in")
    ids, column = table["item_id"], table["vector"]
    if not (pa.types.is_integer(ids.type) or pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)):
        raise UserError(f"{path}: column 'item_id' has type {ids.type}; item ids are strings or integers")
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not (any(test(column.type) for test in lists) and pa.types.is_floating(column.type.value_type)):
        raise UserError(f"{path}: column 'vector' has type {column.type}; lists of floating-point numbers are needed")
    _check_lengths(path, column)
    return _distinct(path, ids.cast(pa.large_string()).combine_chunks()), matrix(column)


def _check_lengths(path: Path, column: pa.ChunkedArray) -> None:
    lengths = pc.list_value_length(column).to_numpy()
    other = np.flatnonzero(lengths != lengths[:1])
    if len(other):
        row = int(other[0])
        raise UserError(
            f"{path}, row {row + 1}: a vector of {lengths[row]} numbers, the first has {lengths[0]}; make them equal"
        )
    if len(lengths) == 0 or lengths[0] == 0:
        raise UserError(f"{path} holds no numbers; a vector for each item is needed")
