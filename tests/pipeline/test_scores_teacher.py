"""Ranked lists made elsewhere through the whole of `ckd`: labels, students, tables, questions in SQL, mistakes."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from ckd.storage.files import sha256_file

PIPELINE = """\
store: store
device: cpu
domains:
  tiny: {{path: {raw}, k_core: 1}}
teachers:
  llm: {{kind: scores, path: "lists-{{domain}}.jsonl", scores: none}}
labels: {{top_k: 7, shard_rows: 128}}
students:
  small: {{kind: sasrec, hidden: 8, blocks: 1, max_length: 8}}
distill: {{epochs: 2}}
"""


def lists_of(corpus):
    """A list of one to six items, by chance, at each position: what follows stands among them more often than not."""
    draw = np.random.default_rng(3)
    ids, users, at = corpus.items["item_id"].to_pylist(), corpus.user_ids.to_pylist(), corpus.positions()
    rows = []
    for user, position, target in zip(at.user, at.position, at.target, strict=True):
        items = draw.permutation(corpus.n_items)[: draw.integers(1, 7)].tolist()
        if target not in items and draw.random() < 0.7:
            items[int(draw.integers(len(items)))] = int(target)
        rows.append({"user_id": users[user], "position": int(position), "items": [ids[item] for item in items]})
    return rows


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def change(place, old, new):
    path = place.folder / "pipeline.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture
def place(tmp_path, world, make_workplace):
    """A workplace whose only teacher is a file of lists."""
    place = make_workplace(tmp_path / "workplace")
    (place.folder / "pipeline.yaml").write_text(PIPELINE.format(raw=world.raw))
    write(place.folder / "lists-tiny.jsonl", lists_of(world.corpus))
    return place


def folder_of(place):
    (folder,) = (place.store / "labels" / "teacher=llm" / "domain=tiny").glob("key=*")
    return folder


def parts(place):
    return {path.name: sha256_file(path) for path in folder_of(place).glob("*.parquet")}


def cells(out, start):
    return next(line for line in out.splitlines() if line.startswith(start)).split()


def test_labels_students_and_tables(place, world):
    done = place.ckd("precompute")
    assert done.returncode == 0, done.stderr
    assert cells(done.stdout, "llm")[:3] == ["llm", "tiny", str(world.corpus.n_positions)]
    assert set(parts(place)) == {f"part-{number:05d}.parquet" for number in range(len(parts(place)))}

    done = place.ckd("distill")
    assert done.returncode == 0, done.stderr
    teacher = cells(done.stdout, "tiny    llm")
    assert teacher[:3] == ["tiny", "llm", "(teacher)"]
    assert teacher[-2:] == ["—", "—"]
    assert [line.split()[2] for line in done.stdout.splitlines() if line.startswith("tiny    small")] == [
        *("no", "yes", "difference")
    ]

    done = place.ckd("sql", "select count(*) as n, sum(state is null) as bare from labels", "--format", "json")
    assert json.loads(done.stdout) == [{"n": world.corpus.n_positions, "bare": world.corpus.n_positions}]

    done = place.ckd("status")
    assert done.returncode == 0, done.stderr
    assert "compute" not in done.stdout.replace("precompute", "")


def test_the_order_of_the_files_rows_changes_no_byte_of_the_labels(place, world):
    assert place.ckd("precompute").returncode == 0
    first, folder = parts(place), folder_of(place)
    write(place.folder / "lists-tiny.jsonl", lists_of(world.corpus)[::-1])
    folder.rename(place.folder / "first")
    assert place.ckd("precompute").returncode == 0
    assert folder_of(place).name != folder.name
    assert parts(place) == first


def test_lists_of_the_training_positions_alone_teach(place, world):
    at = world.corpus.positions()
    rows = [row for row, split in zip(lists_of(world.corpus), at.split, strict=True) if split == 0]
    write(place.folder / "lists-tiny.jsonl", rows)
    done = place.ckd("precompute")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"of the {len(at):,} positions of train, valid, test have no list" in line
    assert "`missing: skip`" in line
    assert not list(place.store.glob("labels/*/*/key=*"))

    change(place, "scores: none", "scores: none, missing: skip")
    done = place.ckd("precompute")
    assert done.returncode == 0, done.stderr
    assert cells(done.stdout, "llm")[:3] == ["llm", "tiny", f"{len(rows):,}"]
    assert "nan" not in done.stdout
    done = place.ckd("distill")
    assert done.returncode == 0, done.stderr
    assert cells(done.stdout, "tiny    llm")[3:] == ["—"] * 7


def test_a_teacher_measured_on_some_users_is_said_to_be(place, world):
    at = world.corpus.positions()
    rows = [
        row
        for row, split, user in zip(lists_of(world.corpus), at.split, at.user, strict=True)
        if split == 0 or user < 5
    ]
    write(place.folder / "lists-tiny.jsonl", rows)
    change(place, "scores: none", "scores: none, missing: skip")
    assert place.ckd("precompute").returncode == 0
    done = place.ckd("distill")
    assert done.returncode == 0, done.stderr
    assert f"llm in tiny: measured on the 5 of {world.corpus.n_users} users it has labels of." in done.stdout


def test_without_states_in_the_labels_lists_still_serve_in_batch(place):
    change(place, "shard_rows: 128", "shard_rows: 128, state: false")
    assert place.ckd("precompute").returncode == 0
    done = place.ckd("distill", "--set", "distill.baseline=false")
    assert done.returncode == 0, done.stderr


def test_a_missing_file_is_one_line(place):
    (place.folder / "lists-tiny.jsonl").unlink()
    done = place.ckd("precompute")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: teachers.llm.path: {place.folder}/lists-tiny.jsonl does not exist; ")
    assert done.stderr.count("\n") == 1


def test_a_mistake_in_the_configuration_is_one_line(place):
    change(place, "scores: none", "scores: logprob, format: dllm2rec, positions: p, item_ids: i")
    done = place.ckd("precompute")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "teachers.llm: scores: logprob does not fit format: dllm2rec" in done.stderr


def other_mass(path):
    return json.loads((path / "manifest.json").read_text())["inputs"]["scoring"]["listed_mass"] == 0.5


def test_meaning_of_scores_and_what_to_do_about_gaps_are_part_of_the_key(place):
    """Labels with gaps, made under `skip`, are not what `refuse` asks for."""
    assert place.ckd("precompute").returncode == 0
    before = folder_of(place)
    change(place, "scores: none", "scores: none, missing: skip")
    assert place.ckd("precompute").returncode == 0
    assert len(list(before.parent.glob("key=*"))) == 2
    change(place, "scores: none", "scores: none, listed_mass: 0.5")
    assert place.ckd("precompute").returncode == 0
    (changed,) = (path for path in before.parent.glob("key=*") if path != before and other_mass(path))
    masses = [pq.read_table(path / "part-00000.parquet")["kept_mass"].to_numpy() for path in (before, changed)]
    assert not np.allclose(*masses)
