"""Ways to lay out the same labels on the disk, each with its writer, its reader and what it loses."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sets import Labels

from ckd.storage.keys import Address
from ckd.storage.labels import part_names, write_part
from ckd.storage.parquet import read_table
from ckd.storage.rounding import ROUNDINGS
from ckd.storage.store import Store
from ckd.storage.vectors import matrix

Read = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]


class Layout(ABC):
    """One way.

    Attributes:
        name: in the table.
        columns: those that hold items and log-probabilities.
        in_sql: whether DuckDB sees numbers in them.
    """

    name: str
    columns: tuple[str, ...] = ("items", "logprobs")
    in_sql = True

    @abstractmethod
    def write(self, labels: Labels, folder: Path) -> list[Path]:
        """Write the labels into an empty folder, return the files."""

    @abstractmethod
    def read(self, path: Path, labels: Labels) -> Read:
        """Return items and log-probabilities of one file, [n, k] each."""


class Pandas(Layout):
    """What `DataFrame.to_parquet` makes of lists of Python's numbers."""

    name = "pandas, `to_parquet` of lists"

    def write(self, labels: Labels, folder: Path) -> list[Path]:
        """Write a file per shard."""
        paths = []
        for number, block in enumerate(labels.shards(labels.block.logprobs)):
            paths.append(folder / f"part-{number}.parquet")
            pd.DataFrame({"items": block.items.tolist(), "logprobs": block.logprobs.tolist()}).to_parquet(paths[-1])
        return paths

    def read(self, path: Path, labels: Labels) -> Read:
        """Read one of them."""
        frame = pd.read_parquet(path)
        return np.stack(frame["items"]).astype(np.int32), np.stack(frame["logprobs"]).astype(np.float32)


class Arrow(Layout):
    """What pyarrow makes of int32 and float32 lists by default."""

    name = "pyarrow, defaults"

    def write(self, labels: Labels, folder: Path) -> list[Path]:
        """Write a file per shard."""
        paths = []
        for number, block in enumerate(labels.shards(labels.block.logprobs.astype(np.float32))):
            paths.append(folder / f"part-{number}.parquet")
            pq.write_table(pa.table({"items": list(block.items), "logprobs": list(block.logprobs)}), paths[-1])
        return paths

    def read(self, path: Path, labels: Labels) -> Read:
        """Read one of them."""
        table = pq.read_table(path, columns=list(self.columns))
        return matrix(table["items"]), matrix(table["logprobs"])


class Ours(Layout):
    """Label shards of ckd, whole, but for the states."""

    def __init__(self, precision: str) -> None:
        self.name = f"ckd, `{precision}`"
        self._round = ROUNDINGS[precision]

    def write(self, labels: Labels, folder: Path) -> list[Path]:
        """Write a file per shard."""
        with Store(folder).draft(Address("labels", {}, (("teacher", "t"), ("domain", "d")))) as draft:
            for number, block in enumerate(labels.shards(self._round(labels.block.logprobs))):
                write_part(draft, number, block, labels.corpus, {})
            artifact = draft.commit()
        return [artifact.path / name for name in part_names(artifact)]

    def read(self, path: Path, labels: Labels) -> Read:
        """Read one of them."""
        table = read_table(path, list(self.columns))
        return matrix(table["items"]), matrix(table["logprobs"])


class Packed(Layout):
    """Bits without a gap: codes of as many as the catalogue needs, log-probabilities in steps over 16 nats; zstd."""

    columns = ("packed",)
    in_sql = False

    def __init__(self, bits: int) -> None:
        self.name = f"bit-packed, {bits}-bit log-probabilities"
        self._bits = bits
        self._steps = 2**bits / 16

    def write(self, labels: Labels, folder: Path) -> list[Path]:
        """Write a file per shard."""
        paths = []
        for number, block in enumerate(labels.shards(labels.block.logprobs)):
            paths.append(folder / f"part-{number}.parquet")
            steps = np.clip(np.rint(-block.logprobs * self._steps), 0, 2**self._bits - 1).astype(np.int32)
            halves = (_bits_of(block.items, _width(labels)), _bits_of(steps, self._bits))
            packed = np.packbits(np.concatenate(halves, 1), axis=1)
            kind = pa.binary(packed.shape[1])
            column = pa.FixedSizeBinaryArray.from_buffers(kind, len(packed), [None, pa.py_buffer(packed.tobytes())])
            pq.write_table(pa.table({"packed": column}), paths[-1], compression="zstd", use_dictionary=False)
        return paths

    def read(self, path: Path, labels: Labels) -> Read:
        """Read one of them."""
        column = pq.read_table(path)["packed"].combine_chunks()
        packed = np.frombuffer(column.buffers()[1], np.uint8).reshape(len(column), -1)
        k, width = labels.block.k, _width(labels)
        bits = np.unpackbits(packed, axis=1, count=k * (width + self._bits))
        codes, steps = _numbers(bits[:, : k * width], width), _numbers(bits[:, k * width :], self._bits)
        return codes, (-steps / self._steps).astype(np.float32)


LAYOUTS: tuple[Layout, ...] = (Pandas(), Arrow(), *map(Ours, ROUNDINGS), Packed(8), Packed(11))


def _width(labels: Labels) -> int:
    return int(labels.corpus.n_items - 1).bit_length()


def _bits_of(values: npt.NDArray[np.int32], width: int) -> npt.NDArray[np.uint8]:
    """Return the lowest ``width`` bits of each value, highest first, uint8 [n, k * width]."""
    shifts = np.arange(width - 1, -1, -1, dtype=np.int32)
    return ((values[:, :, None] >> shifts) & 1).astype(np.uint8).reshape(len(values), -1)


def _numbers(bits: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.int32]:
    """Return the values that :func:`_bits_of` took apart."""
    values = np.zeros((len(bits), bits.shape[1] // width), np.int32)
    for place in range(width):
        values = (values << 1) | bits[:, place::width]
    return values
