"""Some of the students of a configuration: those that a command line names."""

from collections.abc import Iterable
from dataclasses import dataclass

from ckd.pipeline.config.models import Configuration
from ckd.pipeline.config.problems import unnamed
from ckd.pipeline.plan import Plan, Run
from ckd.storage.errors import UserError


@dataclass(frozen=True)
class Choice:
    """Which students are meant, in which domains.

    Attributes:
        students: their names; none names all.
        domains: their names; none names all. A student of several domains is meant if one of them is.
    """

    students: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()

    def check(self, configuration: Configuration, purpose: str = "train") -> None:
        """Refuse names that the configuration has not.

        Raises:
            UserError: it has no student or domain of a name, or no student at all; one line per name.
        """
        if not configuration.students:
            raise UserError(f"students: the configuration names no student, so there is nothing to {purpose}")
        named = (("student", self.students, configuration.students), ("domain", self.domains, configuration.domains))
        problems = [
            f"--{what}: {unnamed(what, name, known)}" for what, names, known in named for name in _unknown(names, known)
        ]
        if problems:
            raise UserError("\n".join(problems))

    def runs(self, plan: Plan) -> list[Run]:
        """Return those of the runs of a plan, in its order."""
        return [
            run
            for run in plan.runs()
            if (not self.students or run.student in self.students)
            and (not self.domains or not set(self.domains).isdisjoint(run.domains))
        ]


def _unknown(names: Iterable[str], known: Iterable[str]) -> list[str]:
    there = set(known)
    return [name for name in dict.fromkeys(names) if name not in there]


EVERYTHING = Choice()
