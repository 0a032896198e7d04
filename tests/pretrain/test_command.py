"""`ckd pretrain` as a process: two source domains, one target and three that are the target but for some items."""

import json
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from ckd.storage.files import sha256_file

PIPELINE = """\
store: store
device: cpu
domains:
  target: {{path: target, k_core: 1}}
  other_test: {{path: other_test, k_core: 1}}
  other_held_out: {{path: other_held_out, k_core: 1}}
  other_training: {{path: other_training, k_core: 1}}
sources:
  one: {{path: one, k_core: 1}}
  two: {{path: two, k_core: 1}}
text: {{encoder: {encoder}, max_tokens: 12}}
labels: {{top_k: 7}}
teachers:
"""
TRAINED = """\
  own:
    kind: unisrec
    pretrain:
      held_out: 4
      network:
        {hidden: 16, experts: 2, layers: 1, heads: 2, inner: 16, max_length: 8, adaptor_dropout: 0, temperature: 0.3}
      epochs: 2
    adapt: {mode: inductive, epochs: 8, patience: 8, batch_size: 8, learning_rate: 0.02, dropout: 0}
"""
EXPORTED = """\
  adapted: {kind: unisrec, checkpoint: "exported/own/{domain}"}
  bare: {kind: unisrec, checkpoint: exported/own/pretrained}
"""
DOMAINS = ("target", "other_test", "other_held_out", "other_training")
FILES = {"config.json", "model.safetensors", "curve.parquet", "manifest.json", "manifest.spare.json"}


class Step(NamedTuple):
    """One command in the workplace: its result, and the teachers' files behind it, as inode and time of writing."""

    out: str
    files: dict


def write_domain(folder, raw, changed=(), users=None):
    """Copy the raw files, but users walk through the catalogue item by item, so that there is something to learn.

    Items that are ``changed`` from the end of each user's sequence are replaced by others.
    """
    folder.mkdir()
    items = pq.read_table(raw / "items.parquet")
    pq.write_table(items, folder / "items.parquet")
    rows = pq.read_table(raw / "interactions.parquet").sort_by([("user_id", "ascending"), ("timestamp", "ascending")])
    if users:
        rows = rows.filter(pc.is_in(rows["user_id"], rows["user_id"].unique().slice(0, users)))
    ids = items["item_id"].to_pylist()
    code = np.array([ids.index(item) for item in rows["item_id"].to_pylist()])
    ends = np.flatnonzero(np.append(np.diff(rows["timestamp"].to_numpy()) != 1, True))
    first = np.append(0, ends[:-1] + 1)
    code = (np.repeat(code[first], np.diff(ends, prepend=-1)) + rows["timestamp"].to_numpy() % 1_000) % len(ids)
    for back in changed:
        long_enough = ends[np.diff(ends, prepend=-1) > back]
        code[long_enough + 1 - back] = (code[long_enough + 1 - back] + 11) % len(ids)
    rows = rows.set_column(1, "item_id", pa.array([ids[item] for item in code]))
    pq.write_table(rows, folder / "interactions.parquet")


def run(place, *arguments):
    done = place.ckd(*arguments)
    assert done.returncode == 0, done.stderr
    files = place.store.glob("teachers/*/*")
    return Step(done.stdout, {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files})


def teachers(place):
    """``{domain: folder}`` of the frozen teachers; None is the one before adaptation."""
    domain_of = {json.loads((path / "manifest.json").read_text())["key"]: name for name, path in corpora(place).items()}
    manifests = {path.parent: json.loads(path.read_text()) for path in place.store.glob("teachers/*/manifest.json")}
    return {domain_of.get(manifest["inputs"].get("corpus")): folder for folder, manifest in manifests.items()}


def corpora(place):
    """``{domain: folder}``, told apart by the digest of the raw interactions."""
    raw = {sha256_file(place.folder / name / "interactions.parquet"): name for name in DOMAINS}
    found = {}
    for path in place.store.glob("corpus/*/manifest.json"):
        digest = json.loads(path.read_text())["inputs"]["interactions"]["sha256"]
        if digest in raw:
            found[raw[digest]] = path.parent
    return found


def losses(folder):
    return [row["loss"] for row in pq.read_table(folder / "curve.parquet").to_pylist()[1:]]


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory, make_workplace):
    """A workplace after `ckd pretrain`, and what that did; later steps only add to it."""
    place = make_workplace(tmp_path_factory.mktemp("pretrained") / "workplace")
    for name, changed, users in [
        ("target", (), None),
        ("other_test", (1,), None),
        ("other_held_out", (1, 2), None),
        ("other_training", (3,), None),
        ("one", (), 40),
        ("two", (1, 2, 3), 30),
    ]:
        write_domain(place.folder / name, world.raw, changed, users)
    (place.folder / "pipeline.yaml").write_text(PIPELINE.format(encoder=world.encoder) + TRAINED)
    return place, run(place, "pretrain")


@pytest.fixture(scope="module")
def exported(trained):
    """What a second `ckd pretrain` did that also exports the teachers in half precision."""
    return run(trained[0], "pretrain", "--export", "exported", "--half")


def test_a_teacher_is_pre_trained_once_and_adapted_to_each_domain(trained):
    place, done = trained
    assert teachers(place).keys() == {None, *DOMAINS}
    for domain, folder in teachers(place).items():
        assert {path.name for path in folder.iterdir()} == FILES
        assert f"own, {domain or 'pretrained'}: {folder}" in done.out.splitlines()
    assert [row["epoch"] for row in pq.read_table(teachers(place)[None] / "curve.parquet").to_pylist()] == [1, 2]


def test_test_items_have_no_influence_on_the_adapted_weights(trained):
    place, _ = trained
    items = {sha256_file(corpora(place)[name] / "items.parquet") for name in ("target", "other_test", "other_held_out")}
    assert len(items) == 1
    chosen = json.loads((teachers(place)["target"] / "manifest.json").read_text())["facts"]["best_epoch"]
    assert chosen > 0
    weights = {name: sha256_file(folder / "model.safetensors") for name, folder in teachers(place).items()}
    assert weights["other_test"] == weights["target"] != weights[None]


def test_validation_items_choose_the_epoch_and_are_not_trained_on(trained):
    place, _ = trained
    folders = teachers(place)
    assert losses(folders["other_held_out"]) == losses(folders["target"])
    assert len(losses(folders["target"])) == 8
    chosen = [json.loads((folders[name] / "manifest.json").read_text())["facts"] for name in DOMAINS]
    assert chosen[0]["valid_ndcg@10"] != chosen[2]["valid_ndcg@10"]


def test_training_items_are_what_is_learnt(trained):
    """The poison of the two tests above would be seen if it stood in the training split."""
    folders = teachers(trained[0])
    assert losses(folders["other_training"])[0] != losses(folders["target"])[0]


def test_started_again_it_trains_nothing(trained, exported):
    _, first = trained
    assert exported.files == first.files
    assert " epoch " in first.out
    assert exported.out.splitlines() == [line for line in first.out.splitlines() if line.startswith("own, ")]


def test_the_seed_of_the_students_is_not_that_of_a_teacher(trained):
    place, _ = trained

    def states(setting):
        lines = [line.split() for line in run(place, "status", "--set", setting).out.splitlines()]
        return {word for words in lines if words[:2] == ["ckd", "pretrain"] for word in words} & {"reuse", "compute"}

    assert states("seed=3") == {"reuse"}
    assert states("teachers.own.adapt.seed=3") == {"reuse", "compute"}


def test_precompute_labels_with_the_adapted_teachers(trained):
    place, done = trained
    assert run(place, "precompute").files == done.files
    for domain in DOMAINS:
        (manifest,) = place.store.glob(f"labels/teacher=own/domain={domain}/key=*/manifest.json")
        used = json.loads(manifest.read_text())["inputs"]["teacher"]
        assert used == {name: sha256_file(teachers(place)[domain] / name) for name in used}
        assert set(used) == {"config.json", "model.safetensors"}


def test_an_export_overwrites_no_other(trained):
    place, _ = trained
    done = place.ckd("--set", "domains.pretrained.path=raw", "pretrain", "--export", "elsewhere")
    line = "error: domains.pretrained: --export names the folder of teacher own before its adaptation so; give"
    assert (done.returncode, done.stderr.startswith(line)) == (2, True), done.stderr
    assert not (place.folder / "elsewhere").exists()


def test_what_is_exported_in_half_precision_is_a_checkpoint(trained, exported, world):
    place, _ = trained
    for domain, folder in teachers(place).items():
        copy = load_file(place.folder / "exported" / "own" / (domain or "pretrained") / "model.safetensors")
        own = load_file(folder / "model.safetensors")
        assert copy.keys() == own.keys()
        for name, tensor in own.items():
            assert copy[name].dtype == np.float16
            np.testing.assert_array_equal(copy[name], tensor.astype(np.float16))
    (place.folder / "exported.yaml").write_text(PIPELINE.format(encoder=world.encoder) + EXPORTED)
    run(place, "-c", "exported.yaml", "precompute")
    positions = pq.read_metadata(place.folder / "target" / "interactions.parquet").num_rows - len(
        pq.read_table(corpora(place)["target"] / "sequences.parquet")
    )
    for teacher in ("adapted", "bare"):
        parts = place.store.glob(f"labels/teacher={teacher}/domain=target/key=*/part-*.parquet")
        assert sum(pq.read_metadata(part).num_rows for part in parts) == positions
