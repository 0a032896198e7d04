"""Recformer as a teacher of a configuration: `ckd precompute` as a process, and the item vectors that it keeps."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ckd.storage.artifact import load_artifact
from ckd.storage.keys import Address
from ckd.storage.store import Store
from ckd.storage.vectors import read_vectors, write_vectors

GOLDEN = Path(os.environ.get("CKD_FIXTURES") or Path(__file__).parent.parent / "fixtures").absolute() / "recformer"
PIPELINE = """\
store: store
device: cpu
domains:
  tiny: {{path: {raw}, k_core: 1}}
teachers:
  rec: {{kind: recformer, checkpoint: {teacher}}}
labels: {{top_k: 7, shard_rows: 128}}
students:
  small: {{kind: sasrec, hidden: 8, blocks: 1, max_length: 8}}
"""
TRAINED = """\
store: store
device: cpu
domains:
  tiny: {{path: {raw}, k_core: 1}}
sources:
  other: {{path: {raw}-elsewhere, k_core: 1}}
teachers:
  own:
    kind: recformer
    pretrain:
      network: {{vocabulary: 320, hidden: 8, layers: 2, heads: 2, inner: 8, window: 4, max_tokens: 40, max_items: 5}}
      epochs: 2
      held_out: 8
      batch_size: 16
    adapt: {{epochs: 2, second_epochs: 1, batch_size: 16, warmup: 2}}
labels: {{top_k: 7}}
"""
EXPORTED = """\
  back: {kind: recformer, checkpoint: "exported/own/{domain}"}
labels: {top_k: 7}
"""
AUTHORS = """\
store: store
device: cpu
domains:
  tiny: {{path: {golden}/data, format: recformer}}
teachers:
  rec:
    kind: recformer
    checkpoint: {weights}
    tokenizer: {golden}/tokenizer
    {item_ids}
labels: {{top_k: 10, splits: [valid, test], precision: float32}}
"""


def done(place, *arguments):
    process = place.ckd(*arguments)
    assert process.returncode == 0, process.stderr
    return process.stdout


def labels(place, top_k):
    """All labels of that many items as one table, and the item vectors beside them."""
    for path in place.store.glob("labels/teacher=rec/domain=tiny/key=*/manifest.json"):
        if json.loads(path.read_text())["inputs"]["top_k"] == top_k:
            parts = [pq.read_table(part) for part in sorted(path.parent.glob("part-*.parquet"))]
            return pa.concat_tables(parts), read_vectors(load_artifact(path.parent))
    return pytest.fail("no such labels")


def kept(place):
    (folder,) = place.store.glob("vectors/[!.]*")
    return load_artifact(folder)


@pytest.fixture(scope="module")
def labelled_once(make_workplace, make_recformer, world, tmp_path_factory):
    """A workplace after a `ckd precompute`; nobody writes into it."""
    place = make_workplace(tmp_path_factory.mktemp("recformer") / "workplace")
    make_recformer(place.folder / "teacher")
    (place.folder / "pipeline.yaml").write_text(PIPELINE.format(raw=world.raw, teacher="teacher"))
    done(place, "precompute")
    return place


@pytest.fixture
def place(labelled_once, make_workplace, tmp_path):
    """A copy of it."""
    copy = make_workplace(tmp_path / "workplace", labelled_once.store)
    for name in ("teacher", "pipeline.yaml"):
        source = labelled_once.folder / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy.folder / name)
    return copy


def test_every_position_is_labelled_and_the_vectors_are_kept_apart(labelled_once, world):
    table, vectors = labels(labelled_once, 7)
    assert table.num_rows == world.corpus.n_positions
    np.testing.assert_array_equal(read_vectors(kept(labelled_once)), vectors)
    assert len(vectors) == world.corpus.n_items


def test_other_labels_take_the_item_vectors_that_are_kept(place, world):
    """Vectors planted in their place show in the labels: nothing was encoded again."""
    artifact = kept(place)
    planted = read_vectors(artifact)[::-1].copy()
    shutil.rmtree(artifact.path)
    with Store(place.store).draft(Address("vectors", artifact.inputs)) as draft:
        write_vectors(draft, planted)
        path = draft.commit().path
    assert path == artifact.path
    before = {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in path.iterdir()}
    done(place, "precompute", "--set", "labels.top_k=3")
    np.testing.assert_array_equal(labels(place, 3)[1], planted)
    assert {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in path.iterdir()} == before


def test_another_precision_or_other_weights_are_another_teacher_with_its_own_vectors(place, make_recformer):
    done(place, "precompute", "--set", "teachers.rec.precision=float64")
    assert len(list(place.store.glob("vectors/[!.]*"))) == 2
    make_recformer(place.folder / "teacher", seed=6)
    done(place, "precompute")
    assert len(list(place.store.glob("vectors/[!.]*"))) == 3
    assert len(list(place.store.glob("labels/teacher=rec/domain=tiny/key=*"))) == 3


def test_status_and_sql_know_the_labels_and_pass_over_the_vectors(labelled_once, world):
    lines = [line.split() for line in done(labelled_once, "status").splitlines()]
    assert [words[2:5] for words in lines if words[:2] == ["ckd", "precompute"]] == [["labels", "rec,", "tiny"]]
    assert ["reuse" in words for words in lines if words[:2] == ["ckd", "precompute"]] == [True]
    rows = json.loads(done(labelled_once, "sql", "select count(*) as n from labels", "--format", "json"))
    assert rows == [{"n": world.corpus.n_positions}]


def test_damaged_vectors_are_not_used(place):
    (file,) = kept(place).path.glob("vectors.parquet")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    process = place.ckd("precompute", "--set", "labels.top_k=3")
    assert process.returncode == 2
    assert "vectors.parquet" in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1


def test_a_mistake_in_the_files_is_one_line_and_stores_nothing(place):
    config = json.loads((place.folder / "teacher" / "config.json").read_text())
    del config["max_attr_num"]
    (place.folder / "teacher" / "config.json").write_text(json.dumps(config))
    process = place.ckd("precompute")
    assert process.returncode == 2
    (line,) = process.stderr.strip().splitlines()
    assert "max_attr_num is missing" in line
    assert len(list(place.store.glob("labels/teacher=rec/domain=tiny/key=*"))) == 1


def test_it_is_pre_trained_adapted_exported_in_half_precision_and_labels_again(workplace, world):
    text = TRAINED.format(raw=world.raw)
    (workplace.folder / "pipeline.yaml").write_text(text)
    done(workplace, "pretrain", "--export", "exported", "--half")
    for name in ("pretrained", "tiny"):
        files = {path.name for path in (workplace.folder / "exported" / "own" / name).iterdir()}
        assert files == {"config.json", "model.safetensors", "tokenizer.json"}
    (workplace.folder / "both.yaml").write_text(text.partition("labels: ")[0] + EXPORTED)
    done(workplace, "-c", "both.yaml", "precompute")
    found = {}
    for teacher in ("own", "back"):
        parts = workplace.store.glob(f"labels/teacher={teacher}/domain=tiny/key=*/part-*.parquet")
        table = pa.concat_tables([pq.read_table(part) for part in sorted(parts)])
        assert table.num_rows == world.corpus.n_positions
        found[teacher] = table["target_logprob"].to_numpy()
    np.testing.assert_allclose(found["back"], found["own"], atol=0.3)
    assert not np.array_equal(found["back"], found["own"])


@pytest.mark.parity
@pytest.mark.parametrize("stage", ["pre-trained", "fine-tuned"])
def test_the_authors_checkpoint_and_data_set_give_the_authors_scores(workplace, stage):
    """Of the histories that are both in their data set and among those that they scored."""
    suffix, pattern = {"pre-trained": ("", "*-seqrec.bin"), "fine-tuned": ("_finetuned", "*-finetuned.bin")}[stage]
    (weights,) = GOLDEN.glob(f"recformer-{pattern}")
    item_ids = f"item_ids: {GOLDEN}/data/smap.json" if suffix else ""
    (workplace.folder / "pipeline.yaml").write_text(AUTHORS.format(golden=GOLDEN, weights=weights, item_ids=item_ids))
    done(workplace, "precompute")
    scored = {tuple(history): row for row, history in enumerate(json.loads((GOLDEN / "sequences.json").read_text()))}
    expected = np.load(GOLDEN / f"expected_scores{suffix}.npy")
    parts = {name: json.loads((GOLDEN / "data" / f"{name}.json").read_text()) for name in ("train", "val", "umap")}
    number = json.loads((GOLDEN / "data" / "smap.json").read_text())
    catalogues = [pq.read_table(path)["item_id"].to_pylist() for path in workplace.store.glob("corpus/*/items.parquet")]
    (code,) = [[number[item] for item in ids] for ids in catalogues if number.keys() >= set(ids)]
    table, _ = labels(workplace, 10)
    found = 0
    for label in table.to_pylist():
        user = str(parts["umap"][label["user_id"]])
        row = scored.get((*parts["train"][user], *parts["val"][user]))
        if label["split"] == "test" and row is not None:
            found += 1
            scores = np.array(label["logprobs"]) + label["logsumexp"]
            np.testing.assert_allclose(scores, expected[row][[code[item] for item in label["items"]]], atol=0.03)
    assert found > 2
