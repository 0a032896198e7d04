"""The address of a run: every setting of the configuration either changes it or is listed here as one that may not.

A new setting is covered by itself: unless it changes the key, it has to be added to the harmless ones by hand, or to
those that something else switches on.
"""

from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest

from ckd.pipeline.config.load import load_configuration
from ckd.pipeline.plan import Plan, Run
from ckd.stages.distill.address import run_address
from ckd.stages.distill.curriculum import difficulty
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.evaluate.settings import EvaluateSettings
from ckd.stages.precompute.settings import LabelSettings
from ckd.stages.settings import Settings
from ckd.stages.students.sasrec import Settings as SASRec
from ckd.storage import formats

TEACHING = (
    *("alpha", "temperature", "teacher_temperature", "loss", "student_items", "rank_against"),
    *("teacher_items", "taught_share", "item_start", "control"),
    *("weighting", "curriculum"),
)
"""Parts of `distill` that mean nothing to a student without teachers."""
HARMLESS = {
    "distill.teachers",  # counts by the keys of the labels: see below
    "distill.labels_in_memory",  # where labels are held: test_holding.py proves that it changes nothing
    "distill.scratch",
    "distill.baseline",  # says which students there are, not how one is trained
    "evaluate.cutoffs",  # reports
    "evaluate.bootstrap",
    "labels.batch_size",  # speed
    "labels.shard_rows",  # the cut into files
    "labels.found_by",  # how they are found: test_found_by_name.py holds that the runs are the same
    "students.small.kind",  # there is one kind only
    "students.small.scope",  # says which domains a student has; these are in the key
}
SECOND_TEACHER = "teachers.other={{kind: unisrec, checkpoint: {checkpoint}}}"
SWITCHED_ON_BY = {
    "distill.student_items": ("distill.loss={top_k_plus_student: 1}",),
    "distill.rank_against": ("distill.loss={rank: 1}",),
    "distill.weighting.confidence": (SECOND_TEACHER,),
    "distill.weighting.consistency": (SECOND_TEACHER,),
    "distill.weighting.persistence": (SECOND_TEACHER, "distill.weighting.consistency=rank_biased_overlap"),
    "distill.weighting.consistency_power": (SECOND_TEACHER,),
    "distill.weighting.softness": (SECOND_TEACHER,),
    "distill.weighting.gate_consistency": (SECOND_TEACHER,),
    "distill.curriculum.steps": ("distill.curriculum.pacing=step",),
}
"""Settings that mean nothing by default, with one teacher, and what gives them a meaning."""


def leaves(model: type[Settings], prefix: tuple[str, ...]) -> list[tuple[str, ...]]:
    found = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        is_model = isinstance(inner, type) and issubclass(inner, Settings)
        found += leaves(inner, (*prefix, name)) if is_model else [(*prefix, name)]
    return found


LEAVES = [
    *leaves(DistillSettings, ("distill",)),
    *leaves(SASRec, ("students", "small")),
    *leaves(EvaluateSettings, ("evaluate",)),
    *leaves(LabelSettings, ("labels",)),
]


def another(value: Any, annotation: Any) -> Any:
    """Return another value of the same kind; it need not be a sensible one."""
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    kind = next(kind for kind in kinds if kind is not NoneType)
    if get_origin(kind) is Literal:
        return next((choice for choice in get_args(kind) if choice != value), value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if value == {}:
        return {"uni": 2.0}
    if isinstance(value, dict):
        first, *_ = value
        return value | {first: value[first] + 1}
    if isinstance(value, tuple):
        return value[1:]
    if value is None and get_origin(kind) is tuple:
        return ("uni",)
    if value is None and kind is int:
        return 3
    if value is None and kind is Path:
        return Path("elsewhere")
    raise NotImplementedError(f"how does a {annotation} change?")


def changed(settings: Any, path: tuple[str, ...]) -> Any:
    """Return settings with another value at a path."""
    name, *rest = path
    if isinstance(settings, dict):
        return settings | {name: changed(settings[name], tuple(rest))}
    inner = getattr(settings, name)
    if rest:
        return settings.model_copy(update={name: changed(inner, tuple(rest))})
    return settings.model_copy(update={name: another(inner, type(settings).model_fields[name].annotation)})


@pytest.fixture(scope="module")
def configured(labelled, world):
    """A function of the settings that differ from the default."""

    def load(*overrides):
        given = tuple(
            SECOND_TEACHER.format(checkpoint=world.teacher) if it is SECOND_TEACHER else it for it in overrides
        )
        return load_configuration(labelled.folder / "pipeline.yaml", given)

    return load


@pytest.fixture(scope="module")
def configuration(configured):
    return configured()


def keys(configuration):
    """Keys of the student without teachers and of the one with them."""
    plan = Plan(configuration)
    return tuple(plan.run(Run("small", ("tiny",), distilled)).key for distilled in (False, True))


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_a_setting_changes_the_keys_of_the_students_that_it_concerns(configured, path):
    configuration = configured(*SWITCHED_ON_BY.get(".".join(path), ()))
    plain, taught = keys(configuration)
    other = changed(configuration, path)
    other_plain, other_taught = keys(other)
    if ".".join(path) in HARMLESS:
        assert (other_plain, other_taught) == (plain, taught)
        return
    assert other != configuration
    assert other_taught != taught
    concerns_teaching = path[0] == "labels" or (path[0] == "distill" and path[1] in TEACHING)
    assert (other_plain == plain) == concerns_teaching


def test_nothing_is_listed_that_is_no_setting():
    assert set(map(".".join, LEAVES)) >= HARMLESS | SWITCHED_ON_BY.keys()


@pytest.mark.parametrize("name", SWITCHED_ON_BY)
def test_nothing_is_listed_as_switched_on_that_counts_by_itself(configuration, name):
    assert keys(changed(configuration, tuple(name.split(".")))) == keys(configuration)


@pytest.mark.parametrize(
    ("override", "changes"),
    [("seed=1", True), ("device=auto", False), ("store=elsewhere", False), ("domains.tiny.k_core=2", True)],
)
def test_the_seed_and_the_corpus_matter_and_where_it_runs_does_not(labelled, configuration, override, changes):
    other = keys(load_configuration(labelled.folder / "pipeline.yaml", (override,)))
    assert [left != right for left, right in zip(keys(configuration), other, strict=True)] == [changes, changes]


def test_the_two_variants_of_a_student_are_two_runs(configuration):
    plain, taught = keys(configuration)
    assert plain != taught


RUN = {
    "student": "small",
    "settings": SASRec(),
    "distill": DistillSettings(),
    "mask_history": False,
    "seed": 0,
    "corpora": {"tiny": "corpus"},
    "labels": {"tiny": {"a": "1", "b": "2"}},
}


def run_key(**other):
    return run_address(**(RUN | other)).key


@pytest.mark.parametrize(
    "other",
    [
        {"labels": {"tiny": {"a": "1", "b": "3"}}},
        {"labels": {"tiny": {"a": "2", "b": "1"}}},
        {"labels": {"tiny": {"a": "1"}}},
        {"labels": {}},
        {"corpora": {"tiny": "other"}},
        {"student": "other"},
        {"corpora": {"other": "corpus"}, "labels": {"other": {"a": "1", "b": "2"}}},
        {"corpora": {"tiny": "corpus", "other": "corpus"}},
        {"corpora": {"other": "corpus", "tiny": "corpus"}},
    ],
)
def test_other_labels_another_corpus_and_other_names_are_another_run(other):
    assert run_key(**other) != run_key()


def test_the_order_in_which_teachers_and_terms_stand_in_the_file_does_not_matter():
    assert run_key(labels={"tiny": {"b": "2", "a": "1"}}) == run_key()
    loss, reversed_loss = {"in_batch": 1, "top_k": 2}, {"top_k": 2, "in_batch": 1}
    assert run_key(distill=DistillSettings(loss=loss)) == run_key(distill=DistillSettings(loss=reversed_loss))


def test_nor_does_it_matter_to_what_is_trained_under_that_key(make_world):
    terms = {"length": 0.1, "popularity": 0.7, "teacher_loss": 0.3, "avg(entropy)": 0.2}
    backwards = dict(reversed(terms.items()))
    for seed in range(15):
        draw = np.random.default_rng(seed)
        world = make_world([draw.integers(0, 11, n).tolist() for n in [3, 9, *draw.integers(3, 10, 38)]], 11)
        labels = {"a": world.label("a", draw.normal(size=(world.corpus.n_positions, 11)), 5)}
        found = [difficulty(world.corpus, world.artifact, labels, order) for order in (terms, backwards)]
        np.testing.assert_array_equal(*found)


def test_a_temperature_of_a_teacher_that_takes_no_part_or_of_one_is_no_other_run():
    for harmless in ({"other": 2.0}, {"a": 1.0}):
        assert run_key(distill=DistillSettings(teacher_temperature=harmless)) == run_key()
    assert run_key(distill=DistillSettings(teacher_temperature={"a": 2.0})) != run_key()


def test_choosing_all_teachers_by_name_is_choosing_all(labelled, configuration):
    chosen = load_configuration(labelled.folder / "pipeline.yaml", ("distill.teachers=[uni]",))
    assert keys(chosen) == keys(configuration)


def test_a_newer_format_of_runs_is_another_key(monkeypatch):
    key = run_key()
    monkeypatch.setattr("ckd.stages.distill.address.RUN_FORMAT", formats.RUN_FORMAT + 1)
    assert run_key() != key
