"""A part of the users, as the command line asks for it."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class Sample:
    """A share of the users, above 0 to 1, or a number of them; the other one is None."""

    share: float | None = None
    count: int | None = None

    def of(self, users: int) -> int:
        """Return how many users that are, at least one of those that there are."""
        wanted = self.count if self.share is None else round(self.share * users)
        return min(max(wanted or 1, 1), users)


def sampled(user_ids: Sequence[str | int], sample: Sample, seed: int) -> list[int]:
    """Return the numbers of the sampled users, in order.

    They are those with the smallest SHA-256 of seed and identifier: the same ones whatever the order of the users, and
    a larger sample holds every smaller one.
    """
    drawn = sorted((hashlib.sha256(f"{seed} {user}".encode()).digest(), n) for n, user in enumerate(user_ids))
    return sorted(number for _, number in drawn[: sample.of(len(user_ids))])


class SampleParameter(click.ParamType[Sample]):
    """``0.5%``, the share ``0.005``, or ``20`` users."""

    name = "sample"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Sample:
        """Return the sample that a text asks for."""
        if isinstance(value, Sample):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)(%?)", str(value), re.ASCII)
        if found is not None:
            number, percent = found.groups()
            if not percent and "." not in number and int(number) > 0:
                return Sample(count=int(number))
            share = float(number) / (100 if percent else 1)
            if 0 < share <= 1 and (percent or "." in number):
                return Sample(share=share)
        self.fail(f"{value!r} is no sample; write a percentage (0.5%), a share (0.005) or a number of users (20)")
