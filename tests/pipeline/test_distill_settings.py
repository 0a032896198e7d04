"""Settings under `distill` that do not fit the teachers or the labels: each is one line, and named by its key."""

from pathlib import Path

import pytest

from ckd.pipeline.config.load import load_configuration
from ckd.storage.errors import UserError

COLD = """\
domains: {office: {path: data/office}}
teachers: {cold: {kind: unisrec, checkpoint: c}}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("added", "line"),
    [
        (
            "labels: {state: no}\ndistill: {loss: {top_k_plus_student: 1, rank: 1}}",
            "3: labels.state: must be true: the loss top_k_plus_student scores items with the state; "
            "or take top_k_plus_student out of distill.loss",
        ),
        (
            "labels: {state: no}\ndistill: {loss: {top_k_plus_student: 1, in_batch: 1}}",
            "3: labels.state: must be true: the losses in_batch and top_k_plus_student score items with the state; "
            "or take in_batch and top_k_plus_student out of distill.loss",
        ),
        (
            "distill: {teacher_temperature: {colt: 2}}",
            "3: distill.teacher_temperature.colt: no teacher is named 'colt'; did you mean cold?",
        ),
        (
            "distill: {teacher_temperature: {cold: 0}}",
            "3: distill.teacher_temperature: temperatures must be above zero",
        ),
        (
            "distill: {teacher_temperature: {cold: warm}}",
            "3: distill.teacher_temperature.cold: must be a number, not 'warm'",
        ),
        (
            "distill: {control: one_hot, loss: {in_batch: 1, top_k: 1}}",
            "3: distill.control: one_hot leaves no states, which in_batch needs; take it out of distill.loss",
        ),
        (
            "distill: {control: shuffled, item_start: teacher}",
            "3: distill.item_start: must be random beside a control: it teaches the items' geometry",
        ),
        (
            "distill: {control: shuffled, curriculum: {difficulty: {length: 1, teacher_loss: 1}}}",
            "3: distill.curriculum.difficulty: 'teacher_loss' is computed from the labels as they are stored; leave it "
            "out beside a control",
        ),
        ("distill: {student_items: 0}", "3: distill.student_items: must be 1 or more, not 0"),
        (
            "distill: {rank_against: catalog}",
            "3: distill.rank_against: must be one of catalogue, listed, not 'catalog'; did you mean catalogue?",
        ),
        ("distill: {weighting: {persistence: 1}}", "3: distill.weighting.persistence: must be below 1, not 1"),
    ],
)
def test_a_mistake_is_answered_by_its_line(tmp_path: Path, added: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        load_configuration(written(tmp_path, f"{COLD}{added}\n"))
    assert str(caught.value).endswith(f"pipeline.yaml:{line}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("loss", ["{rank: 1}", "{rank: 1, top_k: 1}", "{top_k_plus_student: 0, rank: 1}"])
def test_losses_that_need_only_what_is_stored_do_without_states(tmp_path: Path, loss: str) -> None:
    path = written(tmp_path, COLD)
    assert not load_configuration(path, ["labels.state=false", f"distill.loss={loss}"]).labels.state


def test_a_teacher_is_softened_by_its_name_also_on_the_command_line(tmp_path: Path) -> None:
    path = written(tmp_path, COLD + "distill: {teachers: [], teacher_temperature: {cold: 2}}\n")
    assert load_configuration(path).distill.teacher_temperature == {"cold": 2}
    assert load_configuration(path, ["distill.teacher_temperature.cold=3"]).distill.teacher_temperature == {"cold": 3}
