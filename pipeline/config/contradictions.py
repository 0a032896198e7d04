"""Settings that are valid each by itself and not together."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ckd.pipeline.config.problems import Key, Problem, unnamed
from ckd.stages.distill.settings import SCORING_LOSSES, DistillSettings
from ckd.stages.teachers import TEACHERS


def contradictions(data: Mapping[str, Any]) -> list[Problem]:
    """Return what does not fit together in a configuration as plain data.

    The data may be unchecked, so that these problems are reported together with all others: whatever does not
    have the expected form is passed over here, since it is reported elsewhere.
    """
    return [
        *_ambiguous_names(data),
        *_sources_that_are_targets(data),
        *_unknown_teachers(data),
        *_unknown_domains(data),
        *_scores_without_state(data),
        *_scores_without_softness(data),
        *_controls_that_leak(data),
        *_pretraining_on_nothing(data),
        *_nothing_to_learn_from(data),
    ]


def _ambiguous_names(data: Mapping[str, Any]) -> list[Problem]:
    return [
        Problem(("sources", name), "is also the name of a domain; give one of them another name")
        for name in _mapping(data, "sources")
        if name in _mapping(data, "domains")
    ]


def _sources_that_are_targets(data: Mapping[str, Any]) -> list[Problem]:
    """Find sources whose raw files are a domain's: all of a source is trained on, held-out items too."""
    domains = {_folder(domain): name for name, domain in _mapping(data, "domains").items()}
    return [
        Problem(
            ("sources", name),
            f"holds the files of domain {domains[folder]}, so teachers would see the items that are held out there; "
            "name other data",
        )
        for name, source in _mapping(data, "sources").items()
        if (folder := _folder(source)) is not None and folder in domains
    ]


def _folder(domain: Any) -> str | None:
    path = domain.get("path") if isinstance(domain, Mapping) else None
    return os.path.normpath(path) if isinstance(path, str | os.PathLike) else None


def _unknown_teachers(data: Mapping[str, Any]) -> list[Problem]:
    known = list(_mapping(data, "teachers"))
    named: list[tuple[Key, Any]] = [
        *((("distill", "teachers", index), name) for index, name in enumerate(_chosen(data) or ())),
        *((("distill", "teacher_temperature", name), name) for name in _softened(data)),
    ]
    return [
        Problem(key, unnamed("teacher", name, known))
        for key, name in named
        if isinstance(name, str) and name not in known
    ]


def _unknown_domains(data: Mapping[str, Any]) -> list[Problem]:
    teachers, known = _mapping(data, "teachers"), list(_mapping(data, "domains"))
    return [
        Problem(("teachers", teacher, "domains", index), unnamed("domain", name, known))
        for teacher in teachers
        for index, name in enumerate(_listed(_mapping(teachers, teacher).get("domains")) or ())
        if isinstance(name, str) and name not in known
    ]


def _scores_without_state(data: Mapping[str, Any]) -> list[Problem]:
    chosen, known = _chosen(data), _mapping(data, "teachers")
    lists = [name for name in known if _gives_lists(_mapping(known, name).get("kind"))]
    teachers = [name for name in (known if chosen is None else chosen) if name not in lists]
    losses = _scoring_losses(data)
    if not (teachers and losses and _mapping(data, "labels").get("state") is False):
        return []
    named = " and ".join(losses)
    they = f"the losses {named} score" if len(losses) > 1 else f"the loss {named} scores"
    return [
        Problem(("labels", "state"), f"must be true: {they} items with the state; or take {named} out of distill.loss")
    ]


def _scores_without_softness(data: Mapping[str, Any]) -> list[Problem]:
    losses = _scoring_losses(data)
    if _mapping(data, "distill").get("control") != "one_hot" or not losses:
        return []
    which = f"{' and '.join(losses)} need; take them" if len(losses) > 1 else f"{losses[0]} needs; take it"
    text = f"one_hot leaves no states, which {which} out of distill.loss"
    return [Problem(("distill", "control"), text)]


def _controls_that_leak(data: Mapping[str, Any]) -> list[Problem]:
    """Find what a teacher still teaches beside labels that are under a control."""
    distill = _mapping(data, "distill")
    if distill.get("control") not in ("shuffled", "one_hot"):
        return []
    found = []
    if distill.get("item_start") == "teacher":
        found.append(
            Problem(("distill", "item_start"), "must be random beside a control: it teaches the items' geometry")
        )
    curriculum = _mapping(distill, "curriculum")
    terms = [term for term in _mapping(curriculum, "difficulty") if term not in ("length", "popularity")]
    if terms and curriculum.get("pacing") != "none":
        text = f"{terms[0]!r} is computed from the labels as they are stored; leave it out beside a control"
        found.append(Problem(("distill", "curriculum", "difficulty"), text))
    return found


def _scoring_losses(data: Mapping[str, Any]) -> list[str]:
    """Return the losses in use that score items with the state."""
    distill = _mapping(data, "distill")
    chosen = _mapping(distill, "loss") if "loss" in distill else DistillSettings().loss
    return [name for name in SCORING_LOSSES if chosen.get(name, 0) != 0]


def _gives_lists(kind: Any) -> bool:
    """Return whether a kind of teacher gives ranked lists, which have no state and need none."""
    return kind in TEACHERS.names() and bool(TEACHERS.load(kind).Settings.gives_lists)


def _pretraining_on_nothing(data: Mapping[str, Any]) -> list[Problem]:
    if data.get("sources"):
        return []
    return [
        Problem(("teachers", name, "pretrain"), "needs domains to train on; name at least one under sources")
        for name, teacher in _mapping(data, "teachers").items()
        if isinstance(teacher, Mapping) and teacher.get("pretrain") is not None
    ]


def _nothing_to_learn_from(data: Mapping[str, Any]) -> list[Problem]:
    splits = _mapping(data, "labels").get("splits")
    chosen = _chosen(data)
    teaching = data.get("students") and (_mapping(data, "teachers") if chosen is None else chosen)
    if not (teaching and isinstance(splits, list | tuple)) or "train" in splits:
        return []
    return [Problem(("labels", "splits"), "must hold train: students learn from the labels of training positions")]


def _chosen(data: Mapping[str, Any]) -> Sequence[Any] | None:
    return _listed(_mapping(data, "distill").get("teachers"))


def _listed(value: Any) -> Sequence[Any] | None:
    return value if isinstance(value, list | tuple) else None


def _softened(data: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(_mapping(data, "distill"), "teacher_temperature")


def _mapping(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}
