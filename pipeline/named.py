"""Corpora and labels by their names in the store: raw files and teachers, whose digests tell otherwise, may be gone."""

from functools import cache, cached_property
from typing import Any

from ckd.pipeline.config.models import Configuration
from ckd.pipeline.plan import Plan
from ckd.stages.precompute.address import kept_of
from ckd.stages.text.settings import TextSettings
from ckd.storage.artifact import Artifact
from ckd.storage.errors import UserError
from ckd.storage.keys import SHORT, Address
from ckd.storage.store import address_of


def plan_of(configuration: Configuration) -> Plan:
    """Return the plan of a configuration for what comes after the labels."""
    return NamedPlan(configuration) if configuration.labels.found_by == "name" else Plan(configuration)


def refuse_names(configuration: Configuration, command: str) -> None:
    """Refuse to make or to remove anything by a plan that does not know what it is made from.

    Raises:
        UserError: the configuration finds labels by name.
    """
    if configuration.labels.found_by == "name":
        raise UserError(
            f"labels.found_by is name, so what labels are made from is not asked for; leave it out of `ckd {command}`"
        )


class NamedPlan(Plan):
    """A plan whose labels are those that the store has under teacher and domain, and whose corpora are theirs.

    Keys of runs are those of a plan that knows raw files and teachers: a student is the same wherever it is trained.
    """

    by_inputs = False

    @cache  # noqa: B019
    def corpus(self, domain: str) -> Address:
        """Return the corpus that a domain's labels are of.

        Raises:
            UserError: no teacher labels the domain, its labels are of several corpora, or the store lacks theirs.
        """
        teachers = self.taught_by(domain) or [
            name for name in self.configuration.teachers if self._labels(name, domain)
        ]
        if not teachers:
            raise UserError(
                f"the store has no labels of domain {domain}, which tell its corpus; leave labels.found_by out"
            )
        keys = {name: str(self.labels(name, domain).inputs["corpus"]) for name in teachers}
        if len(set(keys.values())) > 1:
            of = ", ".join(f"of {name} {key[:SHORT]}" for name, key in keys.items())
            raise UserError(
                f"the labels of domain {domain} have several corpora, those {of}; name teachers of one in "
                "distill.teachers"
            )
        (key,) = set(keys.values())
        artifact = self.store.with_key("corpus", key)
        if artifact is None:
            raise UserError(
                f"the store lacks the corpus of domain {domain} that its labels are of; copy corpus/{key[:SHORT]} "
                "into it"
            )
        return address_of(artifact)

    @cache  # noqa: B019
    def labels(self, teacher: str, domain: str) -> Address:
        """Return the only labels of a teacher for a domain that are as ``labels`` says.

        Raises:
            UserError: there are none, or several.
        """
        there = self._labels(teacher, domain)
        fit = [each for each in there if not self._misfits(teacher, each)]
        if len(fit) == 1:
            return address_of(fit[0])
        which = f"of teacher {teacher} for domain {domain}"
        if fit:
            keys = ", ".join(each.key[:SHORT] for each in fit)
            raise UserError(
                f"the store has {len(fit)} labels {which} that fit: {keys}; leave one of them in it, or "
                "leave labels.found_by out"
            )
        if there:
            misfits = "; ".join(f"{each.key[:SHORT]} has {self._misfits(teacher, each)}" for each in there)
            raise UserError(f"the store has no labels {which} as the configuration asks for: {misfits}")
        folder = f"labels/teacher={teacher}/domain={domain}"
        damaged = any(path.parent == self.store.root / folder for path in self.store.damaged("labels"))
        found = "only damaged labels" if damaged else "no labels"
        raise UserError(f"the store has {found} {which}; copy {folder} into it, or leave labels.found_by out")

    def texts(self) -> list[tuple[str, TextSettings]]:
        """Return none: nothing is to be labelled."""
        return []

    def _labels(self, teacher: str, domain: str) -> list[Artifact]:
        folders = [f"teacher={teacher}", f"domain={domain}"]
        return [each for each in self._every if [each.path.parent.parent.name, each.path.parent.name] == folders]

    @cached_property
    def _every(self) -> list[Artifact]:
        return self.store.all("labels")

    def _misfits(self, teacher: str, labels: Artifact) -> str:
        """Return what of some labels is not as the configuration has it, in words; nothing if they fit."""
        wanted: dict[str, Any] = {
            "kind": self.configuration.teachers[teacher].kind,
            **kept_of(self.configuration.labels),
            "folds": len(self.label_folds(teacher)),
        }
        found = {**labels.inputs, "folds": len(labels.inputs.get("folds", {}).get("teachers", ()))}
        return ", ".join(
            f"{name} {found.get(name)} for {value}" for name, value in wanted.items() if found.get(name) != value
        )
