"""A sparse matrix that is not trained, and its product with vectors that are."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

Int64s = npt.NDArray[np.int64]
Compressed = tuple[Tensor, Tensor, Tensor]


class FixedMatrix(nn.Module):
    """A matrix of float32 in compressed rows, with its transpose for the gradient. It is not kept with the weights.

    Both are kept compressed, for products of compressed rows are four times as fast as torch's of coordinates.

    Args:
        row: int64 [E], row of each entry.
        column: int64 [E], its column; no two entries are at one place.
        value: float [E].
        shape: rows, columns.
    """

    def __init__(self, row: Int64s, column: Int64s, value: npt.NDArray[np.floating], shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape = shape
        for side, (first, second, length) in {
            "rows": (row, column, shape[0]),
            "columns": (column, row, shape[1]),
        }.items():
            order = np.lexsort((second, first))
            starts = np.cumsum([0, *np.bincount(first, minlength=length)], dtype=np.int64)
            parts = {"starts": starts, "places": second[order], "values": value[order].astype(np.float32)}
            for name, array in parts.items():
                self.register_buffer(f"{side}_{name}", torch.from_numpy(array), persistent=False)
        with warnings.catch_warnings():
            # That this layout is in beta, torch says once in a process: here, where nobody hears it.
            warnings.simplefilter("ignore")
            torch.sparse_csr_tensor(*self._compressed("rows"), shape, check_invariants=True)

    @property
    def entries_per_row(self) -> Tensor:
        """int64 [rows]."""
        return torch.diff(self._compressed("rows")[0])

    def entries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return where some rows have entries: int64 [n] -> index into ``rows`` and column, int64 [E] each."""
        starts, places, _ = self._compressed("rows")
        count = starts[rows + 1] - starts[rows]
        index = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), count)
        within = torch.arange(len(index), device=rows.device) - (count.cumsum(0) - count)[index]
        return index, places[starts[rows][index] + within]

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the product: float [columns, d] -> [rows, d]."""
        return _Product.apply(vectors, self._compressed("rows"), self._compressed("columns"), self.shape)

    def transposed(self, vectors: Tensor) -> Tensor:
        """Return the product of the transpose: float [rows, d] -> [columns, d]."""
        return _Product.apply(vectors, self._compressed("columns"), self._compressed("rows"), self.shape[::-1])

    def _compressed(self, side: str) -> Compressed:
        return getattr(self, f"{side}_starts"), getattr(self, f"{side}_places"), getattr(self, f"{side}_values")


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, vectors: Tensor, matrix: Compressed, transpose: Compressed, shape: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(*transpose)
        ctx.shape = shape  # type: ignore[attr-defined]
        return _product(matrix, shape, vectors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _product(ctx.saved_tensors, ctx.shape[::-1], gradient), None, None, None


def _product(matrix: Compressed, shape: tuple[int, int], vectors: Tensor) -> Tensor:
    return torch.sparse_csr_tensor(*matrix, shape, check_invariants=False) @ vectors
