"""Rows in a file without a name: what was written is what is read, nothing is left, and no room is one clear line."""

import ctypes
import mmap
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckd.storage.errors import UserError
from ckd.storage.scratch import expect, spilled


def block_of(rows, seed=0):
    draw = np.random.default_rng([seed, rows])
    return {
        "items": draw.integers(0, 2**31 - 1, (rows, 5), np.int32),
        "logprobs": draw.normal(size=(rows, 5)).astype(np.float32),
        "above": draw.random((rows, 3)) < 0.5,
    }


@given(st.lists(st.integers(0, 9), max_size=6))
@settings(max_examples=30)
def test_the_blocks_come_back_one_after_the_other(tmp_path_factory, sizes):
    blocks = [block_of(rows, seed) for seed, rows in enumerate(sizes)]
    found = spilled(blocks, tmp_path_factory.mktemp("scratch"))
    if not any(sizes):
        assert found == {}
        return
    for name, column in found.items():
        expected = np.concatenate([block[name] for block in blocks])
        assert column.dtype == expected.dtype
        np.testing.assert_array_equal(column, expected)


def test_only_one_block_is_in_memory_at_a_time(tmp_path):
    """Each is 8 MB, and so are the records that are made of it."""
    blocks = ({"x": np.full((1_000, 1_000), seed, np.float64)} for seed in range(6))
    tracemalloc.start()
    found = spilled(blocks, tmp_path / "new" / "folder")["x"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 15e6 < peak < 20e6
    assert found[::1_000, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_the_file_has_no_name_while_it_is_read_or_after(tmp_path):
    found = spilled([block_of(10)], tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert found["items"].shape == (10, 5)


def test_nothing_is_left_of_a_process_that_is_killed_while_it_writes(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; import numpy as np\n"
        "from ckd.storage.scratch import expect, spilled\n"
        "def blocks():\n"
        "    yield {'x': np.zeros((1000, 9))}\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "spilled(blocks(), Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert list(tmp_path.iterdir()) == []


def test_no_room_is_one_line_that_names_the_folder_and_the_settings(tmp_path):
    """The limit of a file's size ends a write as a full disk does."""
    code = (
        "import resource, sys; from pathlib import Path; import numpy as np\n"
        "from ckd.storage.errors import UserError; from ckd.storage.scratch import expect, spilled\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n"
        "    spilled(({'x': np.zeros((1000, 1))} for _ in range(99)), Path(sys.argv[1]))\n"
        "except UserError as error:\n"
        "    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert done.stdout == (
        f"{tmp_path}: File too large: labels that distill.labels_in_memory keeps out of memory need a temporary file "
        "there; make room, name another folder as distill.scratch, or allow them more memory\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"^{tmp_path}/file/folder: {os.strerror(20)}: labels that "):
        spilled([block_of(1)], tmp_path / "file" / "folder")


def resident(column):
    """Whether the system holds each page of the file that a column is in."""
    libc, size = ctypes.CDLL(None, use_errno=True), column.strides[0] * len(column)
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    start = column.__array_interface__["data"][0]
    assert libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(size), pages) == 0, os.strerror(ctypes.get_errno())
    return np.frombuffer(pages, np.uint8) & 1 == 1


def forget(column):
    """Drop what the system holds of a mapped file; what it can't drop it keeps."""
    column.sum()  # only what is in the tables of this process's memory is dropped
    os.sync()
    start, size = column.__array_interface__["data"][0], column.strides[0] * len(column)
    pageout = 21  # Linux 5.4
    ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), pageout)


def test_expected_rows_are_read_and_no_others(tmp_path):
    """Rows of a page each."""
    column = spilled([{"x": np.arange(2_000 * 1_024, dtype=np.int32).reshape(2_000, 1_024)}], tmp_path)["x"]
    forget(column)
    before, expected = resident(column), [7, 8, 1_000, 1_999]
    if before.mean() > 0.1:
        pytest.skip("this file system keeps its files in memory")
    expect(column, np.array([1_999, 7, 8, 1_000, 7]))
    for _ in range(100_000):
        if resident(column)[expected].all():
            break
    assert resident(column)[expected].all()
    assert set(np.flatnonzero(resident(column) & ~before).tolist()) <= set(expected)
    np.testing.assert_array_equal(column[7], np.arange(7 * 1_024, 8 * 1_024))


def test_nothing_is_expected_of_arrays_in_memory_or_of_no_rows(tmp_path):
    expect(np.zeros((5, 3)), np.array([1, 2]))
    expect(spilled([block_of(4)], tmp_path)["items"], np.array([], np.int64))
