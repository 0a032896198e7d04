"""A student's scores at some positions: what :class:`ckd.stages.students.contract.Scores` asks for."""

from torch import Tensor


class FullScores:
    """Scores of every item of the catalogue, all held at once: exact, and the fastest where the catalogue is small."""

    def __init__(self, logits: Tensor, logsumexp: Tensor | None = None) -> None:
        """Take the logits.

        Args:
            logits: float [N, n_items].
            logsumexp: float [N], of the logits, where it is known already.
        """
        self._logits = logits
        self.logsumexp = logits.logsumexp(1) if logsumexp is None else logsumexp

    def of(self, items: Tensor) -> Tensor:
        """int64 [N, m] -> float [N, m]."""
        return self._logits.gather(1, items)

    def among(self, items: Tensor) -> Tensor:
        """int64 [U] -> float [N, U]."""
        return self._logits[:, items]

    def best(self, m: int) -> Tensor:
        """Return int64 [N, min(m, n_items)], best first; which of equal items comes first is not said."""
        return self._logits.detach().topk(min(m, self._logits.shape[1]), dim=1).indices

    def rows(self, chosen: Tensor | slice) -> "FullScores":
        """Bool [N], int64 [M] or a slice -> the scores at these positions."""
        return FullScores(self._logits[chosen], self.logsumexp[chosen])
