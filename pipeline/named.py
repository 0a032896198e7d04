"""Corpora and labels by their names in the store: raw files and teachers, whose digests tell otherwise, may be gone."""

from functools import cache
from typing import Any

from ckd.pipeline.config.models import Configuration
from ckd.pipeline.plan import Plan
from ckd.stages.precompute.address import kept_of
from ckd.stages.text.settings import TextSettings
from ckd.storage.artifact import Artifact
from ckd.storage.errors import UserError
from ckd.storage.keys import SHORT, Address
from ckd.storage.location import below
from ckd.storage.store import address_of


def plan_of(configuration: Configuration) -> Plan:
    """Return the plan of a configuration for what comes after the labels."""
    return NamedPlan(configuration) if configuration.labels.found_by == "name" else Plan(configuration)


def refuse_names(configuration: Configuration, command: str, where: str = "") -> None:
    """Refuse to make or to remove anything by a plan that does not know what it is made from.

    Raises:
        UserError: the configuration finds labels by name.
    """
    if configuration.labels.found_by == "name":
        raise UserError(
            f"{where}labels.found_by is name, so what labels are made from is not asked for; leave it out of "
            f"`ckd {command}`"
        )


class NotByName(UserError):
    """What is asked for by name is not in the store, or not in one kind only. The text says what to do."""


class NamedPlan(Plan):
    """A plan whose labels are those that the store has under teacher and domain, and whose corpora are theirs.

    Keys of runs are those of a plan that knows raw files and teachers: a student is the same wherever it is trained.
    """

    by_inputs = False

    @cache  # noqa: B019
    def corpus(self, domain: str) -> Address:
        """Return the corpus that a domain's labels are of: those that its students learn from, or, if none, any.

        Raises:
            NotByName: there are no labels, they are of several corpora, or the store lacks theirs.
        """
        taught = self.taught_by(domain) if self.configuration.distill.alpha > 0 else []
        if taught:
            keys = {f"teacher {name}": str(self.labels(name, domain).inputs["corpus"]) for name in taught}
        else:
            there, _ = self.store.labels_under("*", domain)
            keys = {"/".join(below(each.path, self.store.root)): str(each.inputs["corpus"]) for each in there}
        if not keys:
            raise NotByName(
                f"the store has no labels of domain {domain}, which tell its corpus; copy those of any teacher into "
                "it, or leave labels.found_by out"
            )
        if len(set(keys.values())) > 1:
            of = ", ".join(f"{key[:SHORT]} ({name})" for name, key in keys.items())
            raise NotByName(
                f"labels of domain {domain} are of several corpora: {of}; "
                + ("name teachers of one of them in distill.teachers" if taught else "leave those of one in the store")
            )
        (key,) = set(keys.values())
        if (artifact := self.store.with_key("corpus", key)) is None:
            name = f"corpus/{key[:SHORT]}"
            found = "only a damaged" if (self.store.root / name).exists() else "no"
            raise NotByName(
                f"the store has {found} corpus {key[:SHORT]}, which the labels of domain {domain} are of; "
                f"copy {name} into it"
            )
        return address_of(artifact)

    @cache  # noqa: B019
    def labels(self, teacher: str, domain: str) -> Address:
        """Return the only labels of a teacher for a domain that are as the configuration says.

        Raises:
            NotByName: there are none, or several, or damaged ones, of which nobody knows whether they are.
        """
        there, damaged = self.store.labels_under(teacher, domain)
        which, folder = f"of teacher {teacher} for domain {domain}", f"labels/teacher={teacher}/domain={domain}"
        if damaged:
            names = ", ".join(path.name for path in damaged)
            raise NotByName(f"the store has damaged labels {which}: {names}; copy them again, or remove them")
        judged = [(each, self._misfits(teacher, each)) for each in there]
        fit = [each for each, misfits in judged if not misfits]
        if len(fit) == 1:
            return address_of(fit[0])
        if fit:
            keys = ", ".join(each.key[:SHORT] for each in fit)
            raise NotByName(
                f"the store has {len(fit)} labels {which} that fit: {keys}; leave one of them in it, or "
                "leave labels.found_by out"
            )
        if judged:
            why = "; ".join(f"{each.key[:SHORT]}: {misfits}" for each, misfits in judged)
            raise NotByName(f"the store has no labels {which} as the configuration asks for: {why}")
        raise NotByName(f"the store has no labels {which}; copy {folder} into it, or leave labels.found_by out")

    def texts(self) -> list[tuple[str, TextSettings]]:
        """Return none: nothing is to be labelled."""
        return []

    def _misfits(self, teacher: str, labels: Artifact) -> str:
        """Return what of some labels is not as the configuration has it, in words; nothing if they fit."""
        settings = self.teacher(teacher)
        found = {**labels.inputs, "folds": len(labels.inputs.get("folds", {}).get("teachers", ()))}
        wanted = {
            "kind": self.configuration.teachers[teacher].kind,
            **kept_of(self.configuration.labels),
            "folds": len(self.label_folds(teacher)),
        }
        misfits = [_misfit(name, found.get(name), value) for name, value in wanted.items() if found.get(name) != value]
        # Where the precision is automatic, the machine that has the teacher decides it.
        scorings = [settings.scoring(lambda: False), settings.scoring(lambda: True)]
        if found.get("scoring") not in scorings:
            misfits.append(_misfit("scoring", found.get("scoring"), scorings[0]))
        return ", ".join(misfits)


def _misfit(name: str, found: Any, wanted: Any) -> str:
    if name == "format":
        return "another version of ckd wrote it"
    if name == "precision":
        found, wanted = ("exact" if value == "float32" else value for value in (found, wanted))
    return f"its {name} is {found}, not {wanted}"
