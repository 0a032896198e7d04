"""`ckd recommend` as a process: who is served, what is written where."""

import csv
import io
import resource
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from ckd.pipeline.cli import main

RUN = ("--set", "distill.epochs=3", "recommend", "small/tiny")


@pytest.fixture(scope="module")
def place(distilled, tmp_path_factory, make_workplace):
    """A workplace with a run of each variant, to write into."""
    return make_workplace(tmp_path_factory.mktemp("recommending") / "workplace", distilled.store)


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


def raw(world):
    return pq.read_table(world.raw / "interactions.parquet").to_pylist()


@pytest.fixture(scope="module")
def everybody(place):
    done = place.ckd(*RUN, "--k", "5")
    assert done.returncode == 0, done.stderr
    return done


def test_all_users_get_a_list_on_standard_output_and_the_progress_goes_elsewhere(everybody):
    rows = read_csv(everybody.stdout)
    assert list(rows[0]) == ["user_id", "rank", "item_id", "score"]
    assert [row["user_id"] for row in rows] == [f"user-{user:02d}" for user in range(60) for _ in range(5)]
    assert [int(row["rank"]) for row in rows] == [1, 2, 3, 4, 5] * 60
    scores = np.array([float(row["score"]) for row in rows]).reshape(60, 5)
    assert (np.diff(scores, axis=1) <= 0).all()
    assert len(np.unique(scores)) > 60
    (line,) = everybody.stderr.splitlines()
    assert line.startswith("recommendations of small, tiny: 60 users in ")


def test_a_parquet_file_holds_the_same(place, everybody):
    done = place.ckd(*RUN, "--k", "5", "--titles", "--out", "new/lists.parquet")
    assert (done.returncode, done.stdout) == (0, "")
    table = pq.read_table(place.folder / "new" / "lists.parquet")
    assert [str(field.type) for field in table.schema] == ["string", "int32", "string", "float", "string"]
    names = table.select(["user_id", "item_id"]).to_pylist()
    assert names == [{name: row[name] for name in ("user_id", "item_id")} for row in read_csv(everybody.stdout)]
    scores = [float(row["score"]) for row in read_csv(everybody.stdout)]
    assert table["score"].to_pylist() == pytest.approx(scores, abs=1e-6)
    assert [path.name for path in (place.folder / "new").iterdir()] == ["lists.parquet"]


def test_histories_of_the_raw_file_are_served_as_the_users_themselves(place, world, everybody):
    done = place.ckd(*RUN, "--k", "5", "--users", str(world.raw / "interactions.parquet"))
    assert done.returncode == 0, done.stderr
    wanted = {(row["user_id"], row["rank"]): row["item_id"] for row in read_csv(everybody.stdout)}
    assert {(row["user_id"], row["rank"]): row["item_id"] for row in read_csv(done.stdout)} == wanted


def test_masked_lists_hold_nothing_that_the_user_had(place, world, everybody):
    had = {(row["user_id"], row["item_id"]) for row in raw(world)}
    assert any((row["user_id"], row["item_id"]) in had for row in read_csv(everybody.stdout)), "nothing to mask"
    done = place.ckd(*RUN, "--k", "5", "--mask-seen", "--out", "masked.csv")
    assert done.returncode == 0, done.stderr
    rows = read_csv((place.folder / "masked.csv").read_text())
    assert len(rows) == 300
    assert not any((row["user_id"], row["item_id"]) in had for row in rows)


def test_users_of_a_file_are_served_in_its_order_and_unknown_ones_counted(place, everybody):
    (place.folder / "users.csv").write_text("user_id\nuser-07\nnobody\nuser-03\n")
    done = place.ckd(*RUN, "--k", "5", "--users", "users.csv")
    said = "1 of 3 users in users.csv that domain tiny does not have: 'nobody'"
    assert done.stderr == f"error: {said}; correct the file, or leave them out with --unknown skip\n"
    assert (done.returncode, done.stdout) == (2, "")
    done = place.ckd(*RUN, "--k", "5", "--users", "users.csv", "--unknown", "skip")
    assert (done.returncode, done.stderr.splitlines()[0]) == (0, f"left out {said}")
    rows = read_csv(done.stdout)
    assert [row["user_id"] for row in rows] == ["user-07"] * 5 + ["user-03"] * 5
    wanted = {(row["user_id"], row["rank"]): row["item_id"] for row in read_csv(everybody.stdout)}
    assert all(wanted[row["user_id"], row["rank"]] == row["item_id"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "lists.json"), "--out lists.json: the name must end in .parquet or .csv"),
        (("--out", "pipeline.csv"), "pipeline.csv is there already; name another file with --out, or replace it with"),
        (("--users", "gone.csv"), "there is no file gone.csv"),
        (("--users", "gone.parquet"), "there is no file gone.parquet"),
        (("--users", "folder.jsonl"), "folder.jsonl is a folder, not a file"),
        (("--out", "pipeline.csv/lists.csv"), "--out pipeline.csv/lists.csv: "),
        (("--out", f"{'n' * 300}.csv"), f"--out {'n' * 300}.csv: file name too long; name another place"),
        (("--domain", "office"), "run "),
        (
            ("--users", "strangers.csv", "--unknown", "skip"),
            "--users strangers.csv: nobody is left to recommend to: left out 2 of 2 users in strangers.csv that domain "
            "tiny does not have: 'he', 'she'",
        ),
        (
            ("--users", "novelties.csv", "--unknown", "skip"),
            "--users novelties.csv: nobody is left to recommend to: left out 1 of 1 item in novelties.csv that domain "
            "tiny does not have: 'new'; left out 2 of 2 users whose histories are empty",
        ),
        (("--users", "empty.csv"), "--users empty.csv: nobody is left to recommend to: empty.csv holds no user"),
    ],
)
def test_a_mistake_is_one_line(place, monkeypatch, capsys, arguments, said):
    (place.folder / "pipeline.csv").write_text("precious")
    (place.folder / "folder.jsonl").mkdir(exist_ok=True)
    (place.folder / "strangers.csv").write_text("user_id\nhe\nshe\n")
    (place.folder / "novelties.csv").write_text("user_id,item_id\nhe,new\nshe,new\n")
    (place.folder / "empty.csv").write_text("user_id\n")
    monkeypatch.chdir(place.folder)
    code = main([*RUN, *arguments])
    out, err = capsys.readouterr()
    assert err.startswith(f"error: {said}")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert (place.folder / "pipeline.csv").read_text() == "precious"


def test_lists_as_long_as_the_catalogue_are_said_to_be(place, everybody):
    done = place.ckd(*RUN, "--k", "3000")
    assert done.returncode == 0
    items = len({row["item_id"] for row in read_csv(done.stdout)})
    assert f"--k 3,000: domain tiny has {items} items, so no list has more" in done.stderr


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_full_disk_leaves_nothing_half(place, form):
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))}
    done = place.ckd(*RUN, "--k", "40", "--out", f"full/lists.{form}", **limit)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: file too large for this file system or the limit of the")
    assert not any((place.folder / "full").iterdir())


def test_a_student_teaches_another(place):
    """The lists of every position, read by a teacher of kind scores, whose labels say what the student says."""
    done = place.ckd(*RUN, "--every-position", "--k", "9", "--out", "taught/tiny.parquet")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.startswith("lists of small, tiny: ")
    teacher = "teachers={student: {kind: scores, path: 'taught/{domain}.parquet', scores: logprob}}"
    configured = ("--set", teacher, "--set", "labels.top_k=9")
    done = place.ckd(*configured, "precompute")
    assert done.returncode == 0, done.stderr
    (labels,) = place.store.glob("labels/teacher=student/domain=tiny/key=*")
    rows = [row for path in labels.glob("part-*.parquet") for row in pq.read_table(path).to_pylist()]
    first = {row["user_id"]: row["target_rank"] <= 5 for row in rows if row["split"] == "test"}
    (run,) = (
        path.parent for path in place.store.glob("runs/*/manifest.json") if '"distilled": true' in path.read_text()
    )
    ranks = pq.read_table(run / "ranks.parquet", filters=[("split", "=", "test")]).to_pylist()
    assert first == {row["user_id"]: row["rank"] <= 5 for row in ranks} and {True, False} == set(first.values())
    done = place.ckd(*configured, "--set", "distill.epochs=1", "distill")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "x.parquet", "--titles"), "Error: --titles is of lists for users; leave it out beside"),
        (("--out", "x.parquet", "--keep-seen"), "Error: --mask-seen or --keep-seen is of lists for users; leave it"),
        ((), "Error: --every-position writes a Parquet file; name it with --out"),
        (("--out", "x.csv"), "error: --out x.csv: the name must end in .parquet"),
    ],
)
def test_what_does_not_go_with_every_position_is_refused(place, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(place.folder)
    assert main([*RUN, "--every-position", *arguments]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(said)


def test_two_processes_may_write_one_file(place, everybody):
    arguments = (*RUN, "--k", "5", "--out", "both.csv", "--force")
    both = [place.start(*arguments) for _ in range(2)]
    assert [process.communicate(timeout=120)[1].count("error") for process in both] == [0, 0]
    assert read_csv((place.folder / "both.csv").read_text()) == read_csv(everybody.stdout)
    assert not [path.name for path in place.folder.iterdir() if path.name.startswith(".both")]


def test_damage_is_called_damage(distilled, make_workplace, tmp_path):
    place = make_workplace(tmp_path / "workplace", distilled.store)
    (corpus,) = (place.store / "corpus").iterdir()
    (corpus / "manifest.json").write_text("torn")
    done = place.ckd("recommend", "small/tiny", "--store", "store", "--k", "5")
    assert done.returncode == 2
    assert f"has only a damaged corpus {corpus.name} of domain tiny that run " in done.stderr
    shutil.rmtree(corpus)
    shutil.copytree(distilled.store / "corpus" / corpus.name, corpus)
    runs = sorted((place.store / "runs").iterdir())
    for run in runs:
        (run / "manifest.json").write_text("torn")
    said = {
        f"run {run.name} is damaged; `ckd verify` says what is wrong with it, `ckd distill` makes it" for run in runs
    }
    done = place.ckd(*RUN)
    assert done.returncode == 2 and any(f"error: small/tiny: {text}" in done.stderr for text in said)
    done = place.ckd("recommend", runs[0].name[:8])
    assert done.returncode == 2 and f"error: run {runs[0].name} is damaged; `ckd verify`" in done.stderr
