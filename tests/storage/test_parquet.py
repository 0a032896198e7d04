"""Parquet files: a flipped bit or a torn file is an error, never another number."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ckd.storage.errors import DamagedArtifact
from ckd.storage.parquet import number_bytes, read_groups, read_table, write_table

TABLE = pa.table(
    {
        "number": pa.array(np.random.default_rng(0).normal(size=3_000).astype(np.float32)),
        "text": pa.array([f"text {n % 7}" for n in range(3_000)]),
        "list": pa.array([[n, n + 1] for n in range(3_000)], pa.list_(pa.int32())),
        "missing": pa.array([None, "x", ""] * 1_000),
    }
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "table.parquet"
    write_table(TABLE, path, row_group=1_024)
    return path


def test_a_table_comes_back_as_it_was(path):
    assert read_table(path).equals(TABLE)
    assert read_table(path, ["list"]).equals(TABLE.select(["list"]))
    assert pq.ParquetFile(path).num_row_groups == 3


def test_row_groups_come_one_after_the_other(path):
    groups = list(read_groups(path, ["number", "list"]))
    assert [group.num_rows for group in groups] == [1_024, 1_024, 952]
    assert pa.concat_tables(groups).equals(TABLE.select(["number", "list"]))


def test_the_footer_tells_what_numbers_take_in_memory(path):
    assert number_bytes(path, ["number", "list"]) == 3_000 * 4 + 6_000 * 4
    assert number_bytes(path, []) == 0


def test_equal_tables_are_equal_bytes(path, tmp_path):
    chunked = pa.concat_tables([TABLE.slice(0, 10), TABLE.slice(10)])
    write_table(chunked, tmp_path / "again.parquet", row_group=1_024)
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("column", range(4))
def test_a_bit_flipped_in_any_column_is_found(path, column):
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(column)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
    path.write_bytes(content)
    for read in (read_table, lambda path: list(read_groups(path))):
        with pytest.raises(DamagedArtifact, match=r"table.parquet cannot be read: .*CRC"):
            read(path)


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_torn_file_is_found(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    for read in (read_table, lambda path: list(read_groups(path)), lambda path: number_bytes(path, ["number"])):
        with pytest.raises(DamagedArtifact, match=r"table.parquet cannot be read"):
            read(path)


def test_a_file_that_is_not_there_is_found(tmp_path):
    with pytest.raises(DamagedArtifact, match=r"gone.parquet cannot be read"):
        read_table(tmp_path / "gone.parquet")
