"""Rows that are too many for memory: written once, in order, to a file without a name, then read at any place."""

import mmap
import os
import tempfile
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ckd.storage.errors import UserError
from ckd.storage.files import make_folder

Columns = Mapping[str, npt.NDArray[Any]]


def spilled(blocks: Iterable[Columns], folder: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of several blocks, one after the other, as arrays that the system reads from a file.

    A row's columns lie side by side, so that a row costs one place of the disk; what of the file fits into the system's
    cache stays there. The file has no name from its first byte on, so nothing is left of it, whatever ends the process;
    it is gone with the last array. It is mapped only when it is whole: a full disk is an error of a write, where it
    would be a deadly signal while writing into a mapping.

    Args:
        blocks: each of the same columns, [n, ...] with n of its own; those without rows are passed over.
        folder: where the file is; made where it is not there.

    Raises:
        UserError: the file cannot be written.
    """
    record: np.dtype[Any] | None = None
    rows = 0
    with _unnamed(folder) as file:
        for block in blocks:
            count = len(next(iter(block.values())))
            if not count:
                continue
            record = record or np.dtype([(name, column.dtype, column.shape[1:]) for name, column in block.items()])
            _write(file, _records(block, count, record), folder)
            rows += count
        if record is None:
            return {}
        mapped = mmap.mmap(file.fileno(), rows * record.itemsize)
    if hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_RANDOM)  # what follows a row on the disk is not what is asked for next
    whole = np.frombuffer(mapped, record)
    return {name: whole[name] for name in record.names or ()}


def expect(column: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> None:
    """Have the system begin to read some rows of a column of :func:`spilled`; return before it has.

    Rows that are asked for unexpected are read page by page, each waited for. Of arrays in memory nothing is expected.

    Args:
        column: the whole of it.
        rows: int64 [n], in any order.
    """
    mapped = _mapping(column)
    if mapped is None or not len(rows) or not hasattr(mapped, "madvise"):
        return
    begin = np.sort(rows) * column.strides[0]
    first, last = begin // mmap.PAGESIZE, (begin + column.strides[0] - 1) // mmap.PAGESIZE
    apart = np.flatnonzero(first[1:] > last[:-1] + 1) + 1
    starts, ends = first[np.r_[0, apart]], last[np.r_[apart - 1, len(last) - 1]] + 1
    for start, end in zip((starts * mmap.PAGESIZE).tolist(), (ends * mmap.PAGESIZE).tolist(), strict=True):
        mapped.madvise(mmap.MADV_WILLNEED, start, min(end, len(mapped)) - start)


def _mapping(column: npt.NDArray[Any]) -> mmap.mmap | None:
    base: Any = column
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return base if isinstance(base, mmap.mmap) else None


def _unnamed(folder: Path) -> FileIO:
    try:
        make_folder(folder)
        file: Any = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise UserError(_unwritable(folder, error)) from error
    return file


def _records(block: Columns, rows: int, record: np.dtype[Any]) -> memoryview:
    filled = np.empty(rows, record)
    for name, column in block.items():
        filled[name] = column
    return filled.view(np.uint8).data


def _write(file: FileIO, data: memoryview, folder: Path) -> None:
    while data:
        try:
            written = file.write(data)
        except OSError as error:
            raise UserError(_unwritable(folder, error)) from error
        data = data[written:]


def _unwritable(folder: Path, error: OSError) -> str:
    return (
        f"{folder}: {os.strerror(error.errno or 0)}: labels that distill.labels_in_memory keeps out of memory need a "
        "temporary file there; make room, name another folder as distill.scratch, or allow them more memory"
    )
