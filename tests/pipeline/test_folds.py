"""Labels out of fold through the commands: what is trained, what each label is of, what is kept and what is said."""

import json
import re
import shutil

import numpy as np
import pytest
import torch

from ckd.stages.teachers import sasrec, unisrec
from ckd.stages.teachers.contract import Opening
from ckd.storage.artifact import load_artifact
from ckd.storage.corpus import SPLITS
from ckd.storage.labels import read_labels
from ckd.storage.vectors import read_vectors

FOLDS = 2
PIPELINE = """\
store: store
device: cpu
domains:
  tiny: {{path: {raw}, k_core: 1}}
text: {{encoder: {encoder}, max_tokens: 12}}
teachers:
  ids:
    kind: sasrec
    train: {{hidden: 8, blocks: 1, max_length: 8, epochs: 2, batch_size: 16, learning_rate: 0.01, folds: {folds}}}
  uni:
    kind: unisrec
    checkpoint: {teacher}
    adapt: {{epochs: 2, batch_size: 16, learning_rate: 0.01, folds: {folds}}}
labels: {{top_k: 7, shard_rows: 128}}
students:
  small: {{kind: sasrec, hidden: 8, blocks: 1, max_length: 8}}
distill: {{epochs: 2, loss: {{in_batch: 1}}}}
"""
KINDS = {"ids": sasrec, "uni": unisrec}
ALL = "all users"
ROWS = [
    f"{name}, adapted to tiny{fold}" for name in KINDS for fold in ("", *(f", fold {n} of {FOLDS}" for n in (1, 2)))
]


def configure(place, world, folds):
    text = PIPELINE.format(raw=world.raw, encoder=world.encoder, teacher=world.teacher, folds=folds)
    (place.folder / "pipeline.yaml").write_text(text)


def done(place, *arguments):
    process = place.ckd(*arguments)
    assert process.returncode == 0, process.stderr
    return process.stdout


def states(place, what):
    """``{of: state}`` of some rows of `ckd status`."""
    lines = [re.split(r" {2,}", line.rstrip()) for line in done(place, "status").splitlines() if "ckd " in line]
    return {subject: state for _, makes, subject, state, *_ in lines if makes == what}


def trained(place):
    """``{(kind, fold or ALL): artifact}`` of the store's teachers."""
    made = [load_artifact(path.parent) for path in place.store.glob("teachers/*/manifest.json")]
    return {(one.inputs["teacher"], one.inputs.get("fold", {}).get("number", ALL)): one for one in made}


def labels(place, teacher):
    (path,) = place.store.glob(f"labels/teacher={teacher}/domain=tiny/key=*/manifest.json")
    return load_artifact(path.parent)


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory, make_workplace):
    """A workplace after `ckd pretrain` and `precompute` without folds."""
    place = make_workplace(tmp_path_factory.mktemp("whole") / "workplace")
    configure(place, world, 0)
    done(place, "pretrain")
    return place


@pytest.fixture(scope="module")
def folded(world, whole, tmp_path_factory, make_workplace):
    """The same after folds were switched on, and what `ckd pretrain` printed; later steps only add to it."""
    place = make_workplace(tmp_path_factory.mktemp("folded") / "workplace", whole.store)
    configure(place, world, FOLDS)
    shutil.copytree(place.store, place.folder / "other")
    states_before = states(place, "teacher")
    labels_before = place.ckd("precompute")
    printed = done(place, "pretrain", "--export", "exported")
    done(place, "precompute")
    return place, states_before, labels_before, printed


def test_the_teachers_of_all_users_are_kept_and_those_of_the_folds_are_still_to_train(folded):
    _, before, _, _ = folded
    assert before == {row: "compute" if "fold" in row else "reuse" for row in ROWS}


def test_labels_wait_for_the_teacher_of_every_fold_and_say_for_which(folded):
    _, _, refused, _ = folded
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line == "error: teacher ids, tiny, fold 1 of 2, is not trained yet; run `ckd pretrain` first"


def test_one_more_teacher_is_trained_for_each_fold_and_its_lines_say_so(folded, whole):
    place, _, _, printed = folded
    assert trained(place).keys() == {(kind, fold) for kind in ("sasrec", "unisrec") for fold in (ALL, 1, 2)}
    epochs = {line.split("  epoch")[0].strip() for line in printed.splitlines() if "  epoch " in line}
    assert epochs == {f"{name}, tiny, fold {number} of {FOLDS}" for name in KINDS for number in (1, 2)}
    for (kind, fold), artifact in trained(whole).items():
        assert trained(place)[kind, fold].key == artifact.key
    assert set(states(place, "teacher").values()) == {"reuse"}


def test_the_manifests_say_who_was_trained_on(folded, world):
    sizes = np.bincount(world.corpus.folds(FOLDS))
    for (_, fold), artifact in trained(folded[0]).items():
        assert artifact.facts.get("users") == (None if fold == ALL else world.corpus.n_users - sizes[fold])


def test_what_is_exported_is_the_teacher_of_all_users(folded):
    place = folded[0]
    found = {path.parent.relative_to(place.folder).as_posix() for path in place.folder.glob("exported/**/config.json")}
    assert found == {"exported/ids/tiny", "exported/uni/tiny"}


@pytest.mark.parametrize("name", KINDS)
def test_a_label_of_a_fold_is_what_the_folds_teacher_says_when_it_is_opened_by_itself(folded, world, name):
    place, corpus = folded[0], world.corpus
    made = labels(place, name)
    found, own = read_labels(made, corpus), corpus.folds(FOLDS)
    numbers = np.where(found.split == SPLITS.index("train"), own[found.user], 0)
    for number in range(FOLDS + 1):
        artifact = trained(place)[{"ids": "sasrec", "uni": "unisrec"}[name], number or ALL]
        files = {file: artifact.path / file for file in artifact.files if file != "curve.parquet"}
        teacher = KINDS[name].open_teacher(Opening(None, files, corpus, world.text, torch.device("cpu")))
        items = teacher.item_vectors().numpy()
        np.testing.assert_allclose(read_vectors(made, number), items, rtol=1e-6)
        mine = np.flatnonzero(numbers == number)
        queries = teacher.queries_at(found.user[mine], found.position[mine]).numpy()
        np.testing.assert_allclose(found.state[mine], queries, rtol=2.0**-10, atol=1e-6)
        scores = torch.from_numpy(queries @ items.T)
        expected = scores.log_softmax(1).gather(1, torch.from_numpy(found.items[mine].astype(np.int64)))
        np.testing.assert_allclose(found.logprobs[mine], expected, atol=0.02)


def test_another_cut_and_batch_gives_the_same_rows(folded, world):
    place = folded[0]
    for fold in place.store.glob("teachers/*"):
        shutil.copytree(fold, place.folder / "other" / "teachers" / fold.name, dirs_exist_ok=True)
    done(place, "precompute", "--set", "store=other", "--set", "labels.shard_rows=50", "--set", "labels.batch_size=3")
    for name in KINDS:
        (path,) = (place.folder / "other").glob(f"labels/teacher={name}/domain=tiny/key=*/manifest.json")
        found, again = (
            read_labels(labels(place, name), world.corpus),
            read_labels(load_artifact(path.parent), world.corpus),
        )
        for column, values in vars(found).items():
            np.testing.assert_array_equal(getattr(again, column), values, err_msg=column)


def test_a_student_learns_from_them_and_everything_is_reused(folded):
    place = folded[0]
    done(place, "distill")
    assert set(states(place, "run").values()) == set(states(place, "labels").values()) == {"reuse"}


def test_sql_answers_from_them_and_knows_whose_fold_a_user_is_in(folded, world):
    place = folded[0]
    own = world.corpus.folds(FOLDS)
    asked = """
        select 1 + ('0x' || sha256(user_id::VARCHAR)[:16])::UBIGINT % 2 as fold, count(distinct user_id) as users
        from labels where teacher = 'ids' group by fold order by fold"""
    rows = json.loads(done(place, "sql", "--format", "json", asked))
    assert [row["users"] for row in rows] == np.bincount(own)[1:].tolist()
    (row,) = json.loads(done(place, "sql", "--format", "json", "select count(*) as n from agreement"))
    assert row["n"] == world.corpus.n_positions


def test_labels_of_held_out_positions_alone_need_no_teacher_of_a_fold(whole, world, tmp_path, make_workplace):
    place = make_workplace(tmp_path / "workplace", whole.store)
    configure(place, world, 0)
    held_out = ("--set", "labels.splits=[valid, test]", "--set", "students={}")
    done(place, "precompute", *held_out)
    before = {name: labels(place, name).key for name in KINDS}
    configure(place, world, FOLDS)
    done(place, "precompute", *held_out)
    assert {name: labels(place, name).key for name in KINDS} == before


@pytest.mark.parametrize(
    ("folds", "said"),
    [
        ("1", "1 fold leaves no other users to adapt its teacher on; give 2 or more, or 0 for none"),
        ("-1", "must be 0 or more, not -1"),
        ("yes", "must be a whole number, not true"),
    ],
)
def test_a_number_of_folds_that_makes_no_sense_is_refused_in_one_line(workplace, world, folds, said):
    configure(workplace, world, 0)
    for key in ("teachers.ids.train.folds", "teachers.uni.adapt.folds"):
        process = workplace.ckd("status", "--set", f"{key}={folds}")
        assert process.returncode == 2
        (line,) = process.stderr.splitlines()
        assert key in line and said in line


def test_another_number_of_folds_is_another_teacher_and_status_says_what_changed(folded, world):
    place = folded[0]
    process = done(place, "status", "--set", "teachers.ids.train.folds=3")
    lines = [line for line in process.splitlines() if " teacher " in line and "ids, adapted" in line]
    assert len(lines) == 4
    assert " reuse " in lines[0]
    assert "changed since the stored one: fold.of" in lines[1]
    assert lines[3].rstrip().endswith("not in the store")
