"""Which runs a sweep means, and that all that is wrong with its points is said before anything is trained."""

import pickle

import pytest

from ckd.pipeline.choice import Choice
from ckd.pipeline.commands import Request
from ckd.pipeline.config.load import load_configuration
from ckd.pipeline.sweep.points import planned_points
from ckd.pipeline.sweep.runs import runs_of
from ckd.storage.errors import UserError


def plans(place, *grids, seeds=None, overrides=()):
    return planned_points(Request(place.folder / "pipeline.yaml", overrides), grids, seeds)


def keys(plans):
    return [job.address.key for plan in plans for job in runs_of(plan)]


def refused(place, *grids, **options):
    with pytest.raises(UserError) as error:
        plans(place, *grids, **options)
    return str(error.value).splitlines()


def test_a_point_without_a_baseline_of_its_own_shares_it_with_the_others(labelled):
    found = plans(labelled, "distill.alpha=0.2,0.8", "distill.temperature=1,2")
    assert len(keys(found)) == 8
    assert len(set(keys(found))) == 5


def test_seeds_count_from_that_of_the_configuration_and_the_first_comes_first(labelled):
    found = plans(labelled, "distill.alpha=0.2,0.8", seeds=3, overrides=("seed=7",))
    assert [plan.configuration.seed for plan in found] == [7, 7, 8, 8, 9, 9]
    assert [plan.configuration.distill.alpha for plan in found] == [0.2, 0.8] * 3


def test_a_point_is_the_configuration_with_its_values_set(labelled):
    (single,) = plans(labelled, overrides=("distill.alpha=0.3", "seed=4"))
    (point,) = plans(labelled, "distill.alpha=0.3", "seed=4")
    assert point.configuration == single.configuration
    assert keys([point]) == keys([single])


def test_a_plan_that_was_sent_has_its_addresses_without_raw_files_and_checkpoints(labelled):
    (plan,) = plans(labelled)
    before = keys([plan])
    sent = pickle.loads(pickle.dumps(plan))
    assert sent.origin is None
    assert keys([sent]) == before


def test_a_plan_that_was_sent_does_not_look_for_what_it_was_not_asked(labelled):
    (plan,) = plans(labelled, overrides=("distill.alpha=0",))
    with pytest.raises(ValueError, match="not asked for"):
        pickle.loads(pickle.dumps(plan)).labels("uni", "tiny")


def test_everything_that_is_wrong_is_said_at_once_a_line_each(labelled):
    said = refused(
        labelled,
        "distill.alpha=2,0.5,-1",
        "distill.temprature=1,2",
        "labels.state=true,false",
        "distill.loss={in_batch: 1},{top_k: 1}",
        "distill.epochs=1,,2",
        "store=a,b",
        "seed=1",
        seeds=2,
    )
    assert sorted(said) == [
        "--grid distill.alpha=-1: must be 0 or more, not -1",
        "--grid distill.alpha=2: must be 1 or less, not 2",
        "--grid distill.epochs=1,,2: a value is empty; write null for none, or take a comma away",
        "--grid distill.temprature=1: unknown key; did you mean temperature?",
        "--grid distill.temprature=2: unknown key; did you mean temperature?",
        "--grid labels.state=false: must be true: the loss in_batch scores items with the state; "
        "or take in_batch out of distill.loss (with distill.loss={in_batch: 1})",
        "--grid seed: --seeds chooses the seeds, too; use one of the two",
        "--grid store: a sweep has one store; give it with --set",
    ]


def test_the_last_of_the_seeds_must_be_one(labelled):
    assert refused(labelled, seeds=2, overrides=("seed=4294967295",)) == [
        "--seeds 2: the last seed would be 4294967296; seeds are below 4294967296"
    ]


def test_labels_that_are_not_there_are_named_with_the_command_that_makes_them(labelled):
    file = labelled.folder / "pipeline.yaml"
    said = refused(labelled, "labels.top_k=3,7,5", "distill.alpha=0,0.5", overrides=("device=cpu", "seed=3"))
    assert said == [
        "the store has no labels of teacher uni for domain tiny; "
        f"run `ckd precompute -c {file} --set device=cpu --set labels.top_k={k}`"
        for k in (3, 5)
    ]


def test_a_point_that_learns_from_no_teacher_needs_no_labels(workplace):
    assert len(set(keys(plans(workplace, "distill.alpha=0", "labels.top_k=3,4")))) == 1


def test_a_sweep_in_some_domains_needs_the_labels_of_no_other(labelled):
    path = labelled.folder / "pipeline.yaml"
    raw = load_configuration(path, ()).domains["tiny"].path
    both = Request(path, (f"domains.more={{path: {raw}, k_core: 1, max_rejected: 0.5}}",))
    with pytest.raises(UserError, match="no labels of teacher uni for domain more"):
        planned_points(both, (), None)
    (plan,) = planned_points(both, (), None, Choice(domains=("tiny",)))
    runs = [str(job.run) for job in runs_of(plan, Choice(domains=("tiny",)))]
    assert runs == ["small, tiny, plain", "small, tiny, distilled"]
    joint = Request(path, (*both.overrides, "students.small.scope=joint"))
    with pytest.raises(UserError, match="no labels of teacher uni for domain more"):
        planned_points(joint, (), None, Choice(domains=("tiny",)))


def test_a_sweep_of_some_students_names_the_unknown_ones(labelled):
    with pytest.raises(UserError, match="--student: no student is named 'smal'; did you mean small"):
        planned_points(Request(labelled.folder / "pipeline.yaml"), (), None, Choice(("smal",)))


def test_without_a_student_there_is_nothing_to_train(labelled):
    assert refused(labelled, "distill.alpha=0.5", overrides=("students={}",)) == [
        "students: the configuration names no student, so there is nothing to train"
    ]
