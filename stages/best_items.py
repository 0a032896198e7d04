"""The best items of a score matrix, ties broken by the lower code."""

from torch import Tensor


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best scores of each row and their columns, ties broken by the lower column.

    ``torch.topk`` leaves open which of several equal scores it takes and in which order. Rows in which the k-th
    score has equals outside the k are therefore sorted whole.
    """
    values, columns = scores.topk(k, dim=1, sorted=False)
    ambiguous = (scores >= values.amin(1, keepdim=True)).sum(1) > k
    if bool(ambiguous.any()):
        columns[ambiguous] = scores[ambiguous].sort(dim=1, descending=True, stable=True).indices[:, :k]
    columns = columns.sort(dim=1).values
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)
