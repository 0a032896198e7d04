"""Arrow booleans as numpy ones."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bools = npt.NDArray[np.bool_]


def as_bools(mask: pa.Array) -> Bools:
    """Return a bool array [N] of an Arrow array without nulls."""
    bools: Bools = mask.to_numpy(zero_copy_only=False)
    return bools
