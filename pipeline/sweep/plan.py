"""The plan of one point of a sweep, as the processes that train get it."""

from typing import Any

from ckd.pipeline.config.models import Configuration
from ckd.pipeline.plan import Plan
from ckd.storage.keys import Address

FREE = {"distill", "students", "evaluate", "seed", "cluster"}
"""Sections of the configuration on which no corpus and no label depends, but for ``distill`` where both are found by
name."""


class SharingPlan(Plan):
    """A plan that takes the addresses of corpora and labels from another, and takes them along to other processes.

    Raw files and checkpoints, whose digests are in these addresses, are so read once for a whole sweep, and not at all
    where the students are trained.

    Attributes:
        origin: the other plan, which differs in :data:`FREE` sections only; None in another process.
    """

    def __init__(self, configuration: Configuration, origin: Plan) -> None:
        super().__init__(configuration)
        self.by_inputs = origin.by_inputs
        self.origin: Plan | None = origin
        self._corpora: dict[str, Address] = {}
        self._labels: dict[tuple[str, str], Address] = {}

    def corpus(self, domain: str) -> Address:  # type: ignore[override]  # is cached there by a decorator
        """Return the corpus of a domain or source domain."""
        if domain not in self._corpora:
            self._corpora[domain] = self._asked().corpus(domain)
        return self._corpora[domain]

    def labels(self, teacher: str, domain: str) -> Address:  # type: ignore[override]
        """Return the labels of one teacher for one domain.

        Raises:
            Pending: the teacher has not been trained yet.
        """
        if (teacher, domain) not in self._labels:
            self._labels[teacher, domain] = self._asked().labels(teacher, domain)
        return self._labels[teacher, domain]

    def _asked(self) -> Plan:
        if self.origin is None:
            raise ValueError("this address was not asked for before the plan was sent")
        return self.origin

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "origin": None}
