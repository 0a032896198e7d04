"""Settings that play no part: they change neither the key of a run nor a bit of what is trained under it."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from ckd.pipeline.report.run_settings import differing, settings_of
from ckd.stages.distill.address import run_address
from ckd.stages.distill.run import prepare_lesson
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.train import train
from ckd.stages.students.contract import side_by_side
from ckd.stages.students.sasrec import Settings as SASRec
from ckd.stages.students.sasrec import build

ONE, TWO, THREE = ("a",), ("a", "b"), ("a", "b", "c")
"""Two agree with each other equally, so what consistency weighs against each other are three."""


class Case(NamedTuple):
    """An option that is changed, where it plays no part and where it does.

    Attributes:
        option: other settings.
        off, on: what it is beside.
        teachers, teachers_on: of the domain.
    """

    option: dict[str, Any]
    off: dict[str, Any]
    on: dict[str, Any]
    teachers: tuple[str, ...] = TWO
    teachers_on: tuple[str, ...] = TWO


def loss(**weights: float) -> dict[str, Any]:
    return {"loss": weights}


def weighting(**options: Any) -> dict[str, Any]:
    return {"weighting": options}


def curriculum(**options: Any) -> dict[str, Any]:
    return {"curriculum": options}


NO_PACE = curriculum(pacing="none")
NO_TERMS = {"confidence": "none", "consistency": "none"}
CASES = {
    "a loss of weight 0": Case(loss(top_k=1, rank=0), loss(top_k=1), loss(top_k=1, in_batch=1)),
    "temperature": Case({"temperature": 2}, loss(rank=1, top_k=0), loss(rank=1, top_k=1)),
    "teacher_temperature": Case({"teacher_temperature": {"a": 2}}, loss(rank=1), loss(rank=1, top_k=1)),
    "student_items": Case({"student_items": 2}, loss(top_k=1, rank=1), loss(top_k_plus_student=1)),
    "student_items at weight 0": Case(
        {"student_items": 2}, loss(top_k=1, top_k_plus_student=0), loss(top_k=1, top_k_plus_student=1)
    ),
    "rank_against": Case({"rank_against": "listed"}, loss(top_k=1, rank=0), loss(top_k=1, rank=1)),
    "consistency of one": Case(weighting(consistency="top_k_jaccard"), {}, {}, ONE),
    "consistency without powers": Case(
        weighting(consistency="top_k_jaccard"),
        weighting(consistency_power=0, gate_consistency=0),
        weighting(consistency_power=0, gate_consistency=1),
    ),
    "consistency is none without powers": Case(
        weighting(consistency="none"),
        weighting(consistency_power=0, gate_consistency=0),
        weighting(consistency_power=1, gate_consistency=0),
        teachers_on=THREE,
    ),
    "persistence": Case(weighting(persistence=0.5), {}, weighting(consistency="rank_biased_overlap")),
    "persistence of one": Case(
        weighting(persistence=0.5),
        weighting(consistency="rank_biased_overlap"),
        weighting(consistency="rank_biased_overlap"),
        ONE,
    ),
    "consistency_power": Case(weighting(consistency_power=3), weighting(consistency="none"), {}, teachers_on=THREE),
    "consistency_power of one": Case(weighting(consistency_power=3), {}, {}, ONE, THREE),
    "gate_consistency": Case(weighting(gate_consistency=3), weighting(consistency="none"), {}),
    "gate_consistency of one": Case(weighting(gate_consistency=3), {}, {}, ONE),
    "gate_confidence": Case(weighting(gate_confidence=3), weighting(confidence="none"), {}),
    "gate_confidence of one": Case(weighting(gate_confidence=3), weighting(confidence="none"), {}, ONE, ONE),
    "confidence of one": Case(
        weighting(confidence="certainty"), weighting(gate_confidence=0), weighting(gate_confidence=2), ONE, ONE
    ),
    "no confidence of one": Case(
        weighting(confidence="none"), weighting(gate_confidence=0), weighting(gate_confidence=2), ONE, ONE
    ),
    "softness of one": Case(weighting(softness=3), {}, {}, ONE),
    "softness of equals": Case(
        weighting(softness=3), weighting(**NO_TERMS), weighting(confidence="none"), THREE, THREE
    ),
    "softness of equals by power": Case(
        weighting(softness=3), weighting(confidence="none", consistency_power=0), weighting(consistency_power=0)
    ),
    "steps": Case(curriculum(steps=2), curriculum(pacing="linear"), curriculum(pacing="step")),
    "steps without warm-up": Case(
        curriculum(steps=2), curriculum(pacing="step", warmup=0), curriculum(pacing="step", warmup=3)
    ),
    "start": Case(curriculum(start=0.3), NO_PACE, {}),
    "start without warm-up": Case(curriculum(start=0.3), curriculum(warmup=0), curriculum(warmup=3)),
    "warmup": Case(curriculum(warmup=3), NO_PACE, {}),
    "difficulty": Case(curriculum(difficulty={"length": -1}), NO_PACE, {}),
    "a term of weight 0": Case(
        curriculum(difficulty={"length": -1, "teacher_loss": 0}),
        curriculum(difficulty={"length": -1}),
        curriculum(difficulty={"length": -1, "teacher_loss": -1}),
    ),
}
OFF = [pytest.param(case, id=name) for name, case in CASES.items()]


def merged(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """Both; sections are merged, while losses are one value."""
    sections = {
        name: left[name] | right[name] for name in left.keys() & right.keys() if name in ("weighting", "curriculum")
    }
    return left | right | sections


def pair(case: Case, on: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings without and with the option."""
    beside = case.on if on else case.off
    return beside, merged(beside, case.option)


def inputs(options: dict[str, Any], teachers: tuple[str, ...] = TWO, **student: Any) -> Any:
    labels = {name: f"labels of {name}" for name in teachers}
    settings, distill = SASRec(**student), DistillSettings(**options)
    return run_address("small", settings, distill, False, 0, {"d": "corpus"}, {"d": labels})


@pytest.mark.parametrize("case", OFF)
def test_an_option_that_is_switched_off_is_in_no_key(case: Case) -> None:
    without, with_it = pair(case, on=False)
    assert inputs(without, case.teachers).key == inputs(with_it, case.teachers).key


@pytest.mark.parametrize("case", OFF)
def test_an_option_that_is_switched_on_is_another_run(case: Case) -> None:
    without, with_it = pair(case, on=True)
    assert inputs(without, case.teachers_on).key != inputs(with_it, case.teachers_on).key


@pytest.fixture(scope="module")
def school(shared_world: Any) -> Any:
    """A domain with the labels of three teachers, which lack some positions each."""
    draw, n, n_items = np.random.default_rng(5), shared_world.corpus.n_positions, shared_world.corpus.n_items
    labels = {}
    for name in THREE:
        state, vectors = draw.normal(size=(n, 4)), draw.normal(size=(n_items, 4))
        rows = np.flatnonzero(draw.random(n) < 0.9)
        labels[name] = shared_world.label(name, state @ vectors.T, 5, rows=rows, state=state, vectors=vectors)
    return shared_world, labels


def trained(school: Any, options: dict[str, Any], teachers: tuple[str, ...]) -> dict[str, torch.Tensor]:
    world, labels = school
    settings = DistillSettings(**{"epochs": 3, "batch_size": 4, **options})
    student = SASRec(hidden=8, heads=1, blocks=1, max_length=8)
    domains = side_by_side([world.corpus])
    taught = {name: labels[name] for name in teachers}
    lesson = prepare_lesson(world.corpus, world.artifact, taught, settings, torch.device("cpu"))
    torch.manual_seed(0)
    network = build(student, domains)
    train(network, domains, [lesson], student, settings, seed=0)
    return network.state_dict()


def same_bits(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left.keys() | right.keys())


@pytest.mark.parametrize("case", OFF)
def test_an_option_that_is_switched_off_changes_no_bit_of_the_student(school: Any, case: Case) -> None:
    without, with_it = pair(case, on=False)
    assert same_bits(trained(school, without, case.teachers), trained(school, with_it, case.teachers))


@pytest.mark.parametrize("case", OFF)
def test_while_switched_on_it_changes_the_student(school: Any, case: Case) -> None:
    without, with_it = pair(case, on=True)
    assert not same_bits(trained(school, without, case.teachers_on), trained(school, with_it, case.teachers_on))


def test_without_warm_up_the_order_of_difficulty_still_makes_the_batches(school: Any) -> None:
    orders = [curriculum(warmup=0, difficulty={"length": weight}) for weight in (1, -1)]
    assert inputs(orders[0]).key != inputs(orders[1]).key
    assert not same_bits(*(trained(school, order, TWO) for order in orders))


def test_a_joint_student_of_one_domain_is_the_student_of_that_domain() -> None:
    assert inputs({}, scope="joint").key == inputs({}, scope="per_domain").key


def test_a_teacher_is_alone_only_where_it_is_so_in_every_domain() -> None:
    def key(softness: float, *teachers: tuple[str, ...]) -> str:
        labels = {f"d{place}": dict.fromkeys(names, "labels") for place, names in enumerate(teachers)}
        distill = DistillSettings(**weighting(softness=softness))
        return run_address("s", SASRec(scope="joint"), distill, False, 0, dict.fromkeys(labels, "corpus"), labels).key

    assert key(1, ONE, ("b",)) == key(2, ONE, ("b",))
    assert key(1, ONE, TWO) != key(2, ONE, TWO)


@pytest.mark.parametrize("teachers", [ONE, TWO])
def test_a_sweep_over_a_switch_and_what_it_switches_shows_the_switch(teachers: tuple[str, ...]) -> None:
    def shown(*options: dict[str, Any]) -> list[str]:
        return differing([("d", settings_of(inputs(each, teachers).inputs)) for each in options])

    assert shown(NO_PACE, curriculum(pacing="root", start=0.3)) == ["distill.curriculum.pacing"]
    gated = shown(weighting(gate_confidence=0), weighting(gate_confidence=1))
    assert gated == [f"distill.weighting.{'confidence' if teachers == ONE else 'gate_confidence'}"]
