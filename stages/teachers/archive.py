"""Reads the files of ``torch.save`` without running anything in them: a zip archive of one pickle and raw storages.

The pickle is read by :mod:`ckd.stages.teachers.inert`. A tensor is cut from its storage on demand, so what a file holds
besides the weights (states of optimisers) is never read. Devices on which tensors were saved are ignored.
"""

import math
import struct
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ckd.stages.teachers.inert import StoredTensor, loads
from ckd.storage.errors import UserError

_PICKLE = "data.pkl"
_UNTYPED = "torch.storage.UntypedStorage"
_STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
_DTYPES = {str(dtype): dtype for dtype in _STORAGES.values()}
_TORN = (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError, struct.error)
"""What zipfile raises for damaged archives."""


class Archive:
    """An open file of ``torch.save``.

    Attributes:
        path: the file.
        content: what was saved: plain values, tensors as :class:`ckd.stages.teachers.inert.StoredTensor`, objects of
            foreign classes as :class:`ckd.stages.teachers.inert.Inert`.
    """

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self.path, self._zip = path, file
        self._records = {info.filename: info for info in file.infolist()}
        roots = [name.removesuffix(_PICKLE) for name in self._records if name.partition("/")[2] == _PICKLE]
        if len(roots) != 1 or len(self._records) != len(file.infolist()):
            raise UserError(f"{path} is a zip archive, but not one that torch.save wrote: it needs one {_PICKLE}")
        self._root = roots[0]
        order = f"{self._root}byteorder"
        self._swapped = order in self._records and self._read("byteorder").decode("latin1") != sys.byteorder
        try:
            self.content: Any = loads(self._read(_PICKLE))
        except ValueError as error:
            raise UserError(f"{path}: its {_PICKLE} cannot be read: {error}") from None

    def shape(self, name: str, value: object) -> tuple[int, ...]:
        """Return the shape of a tensor of the content, checked against its storage, of which nothing is read.

        Raises:
            UserError: the value is no tensor, of an unknown dtype, or reaches beyond its storage; says ``name``.
        """
        stored, dtype = self._dtype(name, value)
        storage = stored.storage
        unit = 1 if storage.kind == _UNTYPED else dtype.itemsize
        held = self._record(f"data/{storage.key}").file_size
        if held != storage.numel * unit:
            raise UserError(
                f"{self.path}: the storage of tensor {name} has {held} bytes, expected {storage.numel * unit}"
            )
        reach = sum((n - 1) * step for n, step in zip(stored.size, stored.stride, strict=True))
        elements, available = math.prod(stored.size), held // dtype.itemsize
        # As many elements as the storage at most: one that repeats elements could ask for any amount of memory.
        if elements and max(stored.offset + reach + 1, elements) > available:
            raise UserError(
                f"{self.path}: tensor {name} of shape {list(stored.size)} reaches beyond its storage of "
                f"{available} elements"
            )
        return stored.size

    def tensor(self, name: str, value: object) -> torch.Tensor:
        """Return a tensor of the content, of its own dtype, contiguous, on the CPU.

        Raises:
            UserError: as :meth:`shape`, or its storage is damaged.
        """
        self.shape(name, value)
        stored, dtype = self._dtype(name, value)
        if not math.prod(stored.size):
            return torch.empty(stored.size, dtype=dtype)
        raw = self._read(f"data/{stored.storage.key}")
        raw = raw[: len(raw) // dtype.itemsize * dtype.itemsize]
        if self._swapped:
            raw = np.frombuffer(raw, np.uint8).reshape(-1, dtype.itemsize)[:, ::-1].tobytes()
        flat = torch.frombuffer(bytearray(raw), dtype=dtype)
        view = flat.as_strided(stored.size, stored.stride, stored.offset)
        return view.clone(memory_format=torch.contiguous_format)

    def _dtype(self, name: str, value: object) -> tuple[StoredTensor, torch.dtype]:
        if not isinstance(value, StoredTensor):
            raise UserError(f"{self.path}: {name} is no tensor that can be read")
        known = _STORAGES.get(value.storage.kind) if value.dtype is None else _DTYPES.get(value.dtype)
        if known is None or value.storage.kind not in {*_STORAGES, _UNTYPED}:
            raise UserError(
                f"{self.path}: tensor {name} is stored as {value.dtype or value.storage.kind}, which is not read; "
                "convert it to float32 and save it again"
            )
        return value, known

    def _record(self, name: str) -> zipfile.ZipInfo:
        info = self._records.get(self._root + name)
        if info is None:
            raise UserError(f"{self.path}: its part {name} is missing")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise UserError(f"{self.path}: its part {name} is compressed, which torch.save never does; save it again")
        return info

    def _read(self, name: str) -> bytes:
        info = self._record(name)
        try:
            data = self._zip.read(info)
        except _TORN as error:
            raise UserError(f"{self.path}: its part {name} is damaged: {error}") from None
        if len(data) != info.file_size:
            raise UserError(f"{self.path}: its part {name} is damaged: it ends early")
        return data


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a file of ``torch.save``; nothing in it is run.

    Raises:
        UserError: it cannot be opened, is no such file or a damaged one, or of torch before 1.6.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be opened: {error.strerror}") from None
    with file:
        try:
            archive = zipfile.ZipFile(file)
        except _TORN as error:
            file.seek(0)
            if file.read(1) == b"\x80":
                raise UserError(
                    f"{path} is of the form that torch wrote before 1.6, which is not read; "
                    "load it with torch and save it again with torch.save"
                ) from None
            raise UserError(f"{path} is no file of torch.save, or a torn one: {error}") from None
        with archive:
            yield Archive(path, archive)
