"""Arrow lists to matrices and back."""

import numpy as np
import pyarrow as pa
import pytest

from ckd.storage.vectors import fixed_lists, matrix


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 3)])
def test_matrix_joins_chunks_and_slices(kind: pa.DataType) -> None:
    values = np.arange(24, dtype=np.float32).reshape(8, 3)
    whole = fixed_lists(values).cast(kind)
    column = pa.chunked_array([whole.slice(1, 2), whole.slice(0, 0), whole.slice(5)])
    assert matrix(column).tolist() == values[[1, 2, 5, 6, 7]].tolist()
    assert matrix(column).dtype == np.float32


def test_matrix_of_no_rows() -> None:
    empty = matrix(pa.chunked_array([], pa.list_(pa.int32())))
    assert len(empty) == 0
    assert empty.dtype == np.int32
