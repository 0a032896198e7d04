"""Products with a fixed sparse matrix against the dense one."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from ckd.stages.students.fixed_matrix import FixedMatrix


def entries(seed: int = 0, rows: int = 6, columns: int = 5, share: float = 0.4) -> tuple[np.ndarray, ...]:
    draw = np.random.default_rng(seed)
    row, column = np.nonzero(draw.random((rows, columns)) < share)
    shuffled = draw.permutation(len(row))
    return row[shuffled], column[shuffled], draw.normal(size=len(row))


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_products_and_gradients_are_those_of_the_dense_matrix(share: float) -> None:
    row, column, value = entries(share=share)
    dense = torch.zeros(6, 5)
    dense[row, column] = torch.from_numpy(value).float()
    matrix = FixedMatrix(row, column, value, (6, 5))
    assert torch.equal(matrix.entries_per_row, (dense != 0).sum(1))
    rows = torch.tensor([4, 0, 4, 5])
    assert torch.equal(torch.stack(matrix.entries(rows)), (dense[rows] != 0).nonzero().T)
    for product, as_dense in ((matrix, dense), (matrix.transposed, dense.T)):
        vectors = torch.randn(as_dense.shape[1], 3, requires_grad=True)
        out, wanted = product(vectors), as_dense @ vectors
        torch.testing.assert_close(out, wanted)
        upstream = torch.randn_like(out)
        torch.testing.assert_close(*(torch.autograd.grad(o, vectors, upstream)[0] for o in (out, wanted)))


def test_it_leaves_nothing_among_the_weights() -> None:
    assert FixedMatrix(*entries(), (6, 5)).state_dict() == {}


def test_the_beta_warning_of_torch_is_not_shown() -> None:
    code = (
        "import numpy as np, torch; from ckd.stages.students.fixed_matrix import FixedMatrix; one = np.zeros(1, int); "
        "print(FixedMatrix(one, one, np.ones(1), (1, 1))(torch.ones(1, 1)).item())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1.0\n", "")
