"""Students from a store alone: corpora and labels by name, without raw files, teachers or text encoder."""

import re
import shutil
from pathlib import Path

import pytest

BY_NAME = ("--set", "labels.found_by=name")
STUDENTS = ("distill", *BY_NAME)
TEACHERS = ("uni", "ids", "rec")


@pytest.fixture
def moved(made_once, tmp_path):
    """A folder with the corpora and labels of a store, in whose configuration raw files and teachers are nowhere."""
    folder = tmp_path / "elsewhere"
    for kind in ("corpus", "labels"):
        shutil.copytree(made_once.store / kind, folder / "store" / kind)
    text = (made_once.folder / "pipeline.yaml").read_text()
    gone = re.sub(r"(path|encoder|checkpoint): /[^,}]*", r"\1: gone", text)
    assert gone.count("gone") == 4
    (folder / "pipeline.yaml").write_text(gone)
    return folder


def labels_of(folder: Path, teacher: str) -> Path:
    (found,) = (folder / "store" / "labels" / f"teacher={teacher}" / "domain=tiny").iterdir()
    return found


def runs_of(folder: Path) -> dict[str, bytes]:
    return {run.name: (run / "model.safetensors").read_bytes() for run in (folder / "store" / "runs").iterdir()}


def rows_of(lines: list[str]) -> list[list[str]]:
    """What, of what and state of each row of `ckd status`."""
    rows = [re.split(r" {2,}", line) for line in lines[2:] if line.startswith(("ckd ", "— "))]
    return [row[1:4] for row in rows]


def test_without_it_the_teachers_are_asked_for(moved, ckd) -> None:
    code, _, error = ckd(moved, "distill")
    assert code == 2 and "teachers.uni.checkpoint" in error and "gone" in error


def test_the_students_are_the_very_runs_that_the_whole_store_has(made_once, moved, ckd) -> None:
    code, _, error = ckd(moved, *STUDENTS)
    assert code == 0, error
    assert runs_of(moved) == runs_of(made_once.folder)


def test_a_sweep_trains_the_same_runs(moved, ckd) -> None:
    code, _, error = ckd(moved, *STUDENTS, "--grid", "distill.alpha=0.8,0.5", "--jobs", "1")
    assert code == 0, error
    swept = runs_of(moved)
    code, _, error = ckd(moved, *STUDENTS, "--set", "distill.alpha=0.5")
    assert code == 0, error
    assert runs_of(moved) == swept and len(swept) == 3


def test_what_comes_after_the_labels_works(moved, ckd) -> None:
    assert ckd(moved, *STUDENTS)[0] == 0
    code, lines, error = ckd(moved, *STUDENTS, "--explain", "--positions", "1")
    assert code == 0 and any(line.startswith("tiny:") for line in lines), error
    code, lines, error = ckd(moved, "runs", *BY_NAME)
    assert code == 0 and sum("small" in line for line in lines) == 2, error
    code, lines, error = ckd(moved, "sql", *BY_NAME, "select distinct teacher from labels order by 1")
    assert code == 0 and [line.strip() for line in lines[2:5]] == sorted(TEACHERS), error
    out = moved / "lists.csv"
    code, _, error = ckd(moved, "recommend", *BY_NAME, "small/tiny", "--k", "2", "--out", str(out))
    assert code == 0 and out.read_text().startswith("user_id,rank,item_id,score"), error


def test_status_lists_what_is_there_and_what_is_to_be_trained(moved, ckd) -> None:
    code, lines, error = ckd(moved, "status", *BY_NAME)
    assert code == 0, error
    assert rows_of(lines) == [
        ["corpus", "tiny", "reuse"],
        *(["labels", f"{teacher}, tiny", "reuse"] for teacher in TEACHERS),
        ["run", "small, tiny, plain", "compute"],
        ["run", "small, tiny, distilled", "compute"],
    ]


def test_status_says_what_is_missing_beside_what_is_there(moved, ckd) -> None:
    shutil.rmtree(labels_of(moved, "rec"))
    code, lines, error = ckd(moved, "status", *BY_NAME, "--set", "distill.teachers=[uni]")
    assert code == 0, error
    assert ["labels", "rec, tiny", "missing"] in rows_of(lines) and ["labels", "uni, tiny", "reuse"] in rows_of(lines)
    assert "no labels of teacher rec" in " ".join(" ".join(lines).split())
    assert ckd(moved, *STUDENTS, "--set", "distill.teachers=[uni]")[0] == 0


@pytest.mark.parametrize(
    "command", ["prepare", "pretrain", "precompute", "gc", "verify --repair", "verify --recompute 3"]
)
def test_nothing_is_made_or_removed_by_names(moved, ckd, command: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in moved.rglob("*")}
    code, _, error = ckd(moved, *command.split(), *BY_NAME)
    command = command.removesuffix(" 3")
    assert code == 2 and error.count("\n") == 1
    assert "labels.found_by is name" in error and f"leave it out of `ckd {command}`" in error
    assert {path: path.stat().st_mtime_ns for path in moved.rglob("*")} == before


def test_labels_that_are_not_there_are_one_line(moved, ckd) -> None:
    shutil.rmtree(labels_of(moved, "uni"))
    code, _, error = ckd(moved, *STUDENTS)
    assert code == 2 and error.count("\n") == 1
    assert "no labels of teacher uni for domain tiny; copy labels/teacher=uni/domain=tiny into it" in error


def test_damaged_labels_are_called_so(moved, ckd) -> None:
    (labels_of(moved, "uni") / "part-00000.parquet").write_bytes(b"torn")
    code, _, error = ckd(moved, *STUDENTS)
    assert code == 2 and error.count("\n") == 1 and "damaged labels of teacher uni for domain tiny: key=" in error


@pytest.mark.parametrize(
    ("teacher", "override", "said"),
    [
        ("uni", "labels.top_k=5", "its top_k is 7, not 5"),
        ("uni", "labels.precision=exact", "its precision is fixed, not exact"),
        ("uni", "labels.splits=[train]", "its splits is ['train', 'valid', 'test'], not ['train']"),
        ("ids", "teachers.ids.train.folds=3", "its folds is 2, not 3"),
        ("rec", "teachers.rec.precision=bfloat16", "its scoring is {'precision': 'float32'}, not"),
    ],
)
def test_labels_that_are_made_otherwise_are_named_with_what_differs(moved, ckd, teacher, override, said) -> None:
    code, _, error = ckd(moved, *STUDENTS, "--set", override, "--set", f"distill.teachers=[{teacher}]")
    assert code == 2 and error.count("\n") == 1
    key = labels_of(moved, teacher).name.removeprefix("key=")
    assert f"{key}: {said}" in error


@pytest.fixture
def more(made_once, tmp_path, ckd):
    """A copy of the store and its configuration, and a function that lets teacher uni alone label again in it."""
    folder = tmp_path / "more"
    shutil.copytree(made_once.store, folder / "store")
    shutil.copy(made_once.folder / "pipeline.yaml", folder)

    def label(teacher: Path, *overrides: str) -> Path:
        options = (f"teachers={{uni: {{kind: unisrec, checkpoint: {teacher}}}}}", *overrides)
        code, _, error = ckd(folder, "precompute", *(word for option in options for word in ("--set", option)))
        assert code == 0, error
        return folder

    return label


def test_of_several_labels_that_fit_none_is_guessed(more, ckd, world, make_teacher, tmp_path) -> None:
    folder = more(make_teacher(tmp_path / "other", world.text.encoder, seed=9))
    code, _, error = ckd(folder, *STUDENTS)
    assert code == 2 and error.count("\n") == 1
    keys = sorted(path.name.removeprefix("key=") for path in folder.glob("store/labels/teacher=uni/domain=tiny/*"))
    assert f"2 labels of teacher uni for domain tiny that fit: {', '.join(keys)}" in error


def test_labels_of_several_corpora_teach_nobody_together(more, ckd, made_once, world, other_items) -> None:
    folder = more(world.teacher, f"domains.tiny.path={other_items}")
    shutil.rmtree(folder / "store" / labels_of(made_once.folder, "uni").relative_to(made_once.store))
    code, _, error = ckd(folder, *STUDENTS)
    assert code == 2 and error.count("\n") == 1
    assert "labels of domain tiny are of several corpora" in error and "(teacher uni)" in error
    code, _, error = ckd(folder, *STUDENTS, "--set", "distill.teachers=[uni]")
    assert code == 0, error
    first = set(runs_of(folder))
    code, _, error = ckd(folder, *STUDENTS, "--set", "distill.teachers=[rec]")
    assert code == 0, error
    both = set(runs_of(folder))
    swept = ckd(folder, *STUDENTS, "--grid", "distill.teachers=[uni],[rec]", "--jobs", "1")
    assert swept[0] == 0 and set(runs_of(folder)) == both > first, "each point has the corpus of its own labels"
    only = ("--set", "distill.teachers=[uni]")
    code, lines, error = ckd(folder, "sql", *BY_NAME, *only, "select distinct teacher from labels")
    assert code == 0 and "left out labels of rec for tiny: they are of another corpus" in error
    assert [line.strip() for line in lines[2:]] == ["uni", "1 row"]


def test_a_store_without_the_corpus_of_its_labels_is_one_line(moved, ckd) -> None:
    (corpus,) = (moved / "store" / "corpus").iterdir()
    shutil.rmtree(corpus)
    code, _, error = ckd(moved, *STUDENTS)
    assert code == 2 and error.count("\n") == 1
    assert f"no corpus {corpus.name}" in error and f"copy corpus/{corpus.name} into it" in error


def test_students_without_teachers_find_their_corpus_by_any_labels(moved, ckd) -> None:
    for override in ("labels.top_k=5", "teachers={}"):
        code, _, error = ckd(moved, *STUDENTS, "--set", "distill.alpha=0", "--set", override)
        assert code == 0, error
        assert len(runs_of(moved)) == 1
    shutil.rmtree(moved / "store" / "labels")
    code, _, error = ckd(moved, *STUDENTS, "--set", "distill.alpha=0")
    assert code == 2 and "no labels of domain tiny, which tell its corpus; copy those of any teacher" in error
