"""Which students `--student` and `--domain` mean."""

from pathlib import Path

import pytest
from config_files import written

from ckd.pipeline.choice import Choice
from ckd.pipeline.config.load import load_configuration
from ckd.pipeline.plan import Plan
from ckd.storage.errors import UserError

TWO = """\
store: made
domains: {office: {path: a}, tools: {path: b}}
students:
  small: {kind: sasrec}
  wide: {kind: sasrec, hidden: 128}
  both: {kind: sasrec, scope: joint}
"""
ALL = ["small, office", "wide, office", "small, tools", "wide, tools", "both, office + tools"]


def chosen(folder: Path, choice: Choice) -> list[str]:
    configuration = load_configuration(written(folder, TWO), ())
    choice.check(configuration)
    return [str(run).removesuffix(", plain") for run in choice.runs(Plan(configuration))]


@pytest.mark.parametrize(
    ("students", "domains", "expected"),
    [
        ((), (), ALL),
        (("wide",), (), ["wide, office", "wide, tools"]),
        ((), ("tools",), ["small, tools", "wide, tools", "both, office + tools"]),
        (("wide", "both"), ("office",), ["wide, office", "both, office + tools"]),
        (("small", "wide"), ("tools", "office"), ALL[:4]),
    ],
)
def test_a_run_is_meant_if_its_student_is_and_one_of_its_domains(
    tmp_path: Path, students: tuple[str, ...], domains: tuple[str, ...], expected: list[str]
) -> None:
    assert chosen(tmp_path, Choice(students, domains)) == expected


def test_every_unknown_name_is_said_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        chosen(tmp_path, Choice(("smal", "x", "small"), ("offices",)))
    assert str(error.value).splitlines() == [
        "--student: no student is named 'smal'; did you mean small?",
        "--student: no student is named 'x'; known: small, wide, both",
        "--domain: no domain is named 'offices'; did you mean office?",
    ]
