"""Which interactions stay: the iterative k-core, and the shortest sequence that leave-one-out can split."""

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def k_core(users: Codes, items: Codes, k: int, user_k: int | None = None) -> Mask:
    """Return which interactions belong to the k-core: the largest part in which everyone has enough of them.

    Users and items with too few interactions are dropped, again and again, until none is left. Interactions
    are counted, not distinct pairs: a user who bought one item three times has three.

    Args:
        users: int64 [N], a code per user, dense from 0.
        items: int64 [N], a code per item, dense from 0.
        k: fewest interactions of an item, and of a user unless ``user_k`` is given.
        user_k: fewest interactions of a user.

    Returns:
        bool [N].
    """
    fewest_of_user = k if user_k is None else user_k
    kept = np.arange(len(users))
    while True:
        u, i = users[kept], items[kept]
        enough = (np.bincount(u)[u] >= fewest_of_user) & (np.bincount(i)[i] >= k) if len(kept) else np.ones(0, bool)
        if enough.all():
            break
        kept = kept[enough]
    mask = np.zeros(len(users), dtype=bool)
    mask[kept] = True
    return mask
