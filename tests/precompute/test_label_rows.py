"""What `ckd precompute` stored is what the teacher says, computed a second time from its weights alone."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ckd.stages.precompute.address import label_address
from ckd.stages.precompute.label import label_corpus
from ckd.stages.precompute.settings import LabelSettings
from ckd.stages.teachers.contract import Opening
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS, digests, folder_files
from ckd.stages.teachers.unisrec import open_teacher
from ckd.storage.artifact import load_artifact
from ckd.storage.corpus import SPLITS
from ckd.storage.draft import Draft
from ckd.storage.files import sha256_file
from ckd.storage.labels import part_names, read_labels
from ckd.storage.progress import shards_done
from ckd.storage.rounding import ROUNDINGS
from ckd.storage.store import Store
from ckd.storage.vectors import read_vectors

K = 7


@pytest.fixture(scope="module")
def artifact(labelled):
    artifact = load_artifact(labelled.labels)
    artifact.verify()
    return artifact


@pytest.fixture(scope="module")
def labels(artifact, world):
    return read_labels(artifact, world.corpus)


@pytest.fixture(scope="module")
def told(world, dense):
    """Unit item vectors and one query (unit sequence vector / tau) per position, by the dense teacher."""
    corpus, limit, tau = world.corpus, dense.network["max_length"], dense.network["temperature"]
    table = dense.items(world.text.vectors.astype(np.float64))
    positions = corpus.positions()
    states = np.stack(
        [
            dense.sequence(table[corpus.sequence_of(user)[:position][-limit:]])
            for user, position in zip(positions.user, positions.position, strict=True)
        ]
    )
    units = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (table, states)]
    return units[0], units[1] / tau


@pytest.fixture(scope="module")
def scores(told):
    """What the labels are made from: vectors as float32 and queries as float16, both as they are stored."""
    vectors, queries = told
    return (queries.astype(np.float16).astype(np.float64) @ vectors.astype(np.float32).astype(np.float64).T).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def logprobs(scores):
    exact = scores.astype(np.float64)
    top = exact.max(1, keepdims=True)
    return exact - top - np.log(np.exp(exact - top).sum(1, keepdims=True))


def test_there_is_one_row_per_position_with_its_split_and_the_item_that_followed(labels, world):
    rows = []
    for user in range(world.corpus.n_users):
        sequence = world.corpus.sequence_of(user).tolist()
        held_out = {len(sequence) - 1: "test", len(sequence) - 2: "valid"}
        rows += [(user, t, held_out.get(t, "train"), sequence[t]) for t in range(1, len(sequence))]
    split = [SPLITS[code] for code in labels.split]
    assert list(zip(labels.user, labels.position, split, labels.target, strict=True)) == rows


def test_rows_name_users_and_targets_as_the_raw_files_do(artifact, world):
    raw = pq.read_table(world.raw / "interactions.parquet").to_pydict()
    sequences = {}
    for user, item in zip(raw["user_id"], raw["item_id"], strict=True):
        sequences.setdefault(user, []).append(item)
    found = [row for name in part_names(artifact) for row in pq.read_table(artifact.path / name).to_pylist()]
    for row in found:
        assert row["target"] == sequences[row["user_id"]][row["position"]]
    assert len(found) == sum(len(items) - 1 for items in sequences.values())


def test_the_stored_query_and_item_vectors_are_the_teachers(artifact, labels, told):
    vectors, queries = told
    np.testing.assert_allclose(read_vectors(artifact), vectors, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(labels.state, queries.astype(np.float16))


def test_the_stored_items_are_the_best_of_the_whole_catalogue_ties_by_code(labels, scores):
    codes = np.arange(scores.shape[1])
    expected = np.stack([np.lexsort((codes, -row))[:K] for row in scores])
    np.testing.assert_array_equal(labels.items, expected)


def test_two_items_of_one_text_tie_exactly_and_the_lower_code_stands_first(labels, scores, world):
    np.testing.assert_array_equal(world.text.vectors[11], world.text.vectors[30])
    np.testing.assert_array_equal(scores[:, 11], scores[:, 30])
    both = [row.tolist() for row in labels.items if {11, 30} <= set(row)]
    assert both
    assert all(row.index(30) == row.index(11) + 1 for row in both)


def test_the_stored_log_probabilities_are_those_of_the_whole_softmax_rounded(labels, logprobs):
    exact = np.take_along_axis(logprobs, labels.items.astype(np.int64), 1)
    # Half a step, and what two orders of summation may differ by.
    assert (np.abs(labels.logprobs - exact) <= 2.0**-10 + 1e-9).all()
    np.testing.assert_array_equal(labels.logprobs, np.rint(labels.logprobs * 512) / 512)


def test_the_scalars_are_those_of_the_whole_softmax(labels, scores, logprobs):
    probability = np.exp(logprobs)
    rows = np.arange(len(scores))
    expected = {
        "logsumexp": scores[rows, 0] - logprobs[rows, 0],
        "kept_mass": np.take_along_axis(probability, labels.items.astype(np.int64), 1).sum(1),
        "target_logprob": logprobs[rows, labels.target],
        "entropy": -(probability * logprobs).sum(1),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(labels, name), values, rtol=1e-6, atol=1e-6, err_msg=name)


def test_the_targets_rank_counts_the_better_items_and_the_equal_ones_of_lower_code(labels, scores):
    own = scores[np.arange(len(scores)), labels.target][:, None]
    before = np.arange(scores.shape[1]) < labels.target[:, None]
    np.testing.assert_array_equal(labels.target_rank, 1 + ((scores > own) | ((scores == own) & before)).sum(1))


def test_a_state_and_the_item_vectors_give_the_score_of_any_item_again(labels, artifact, world):
    vectors = read_vectors(artifact).astype(np.float64)
    scores = labels.state.astype(np.float64) @ vectors.T
    target = scores[np.arange(len(scores)), labels.target]
    np.testing.assert_allclose(labels.target_logprob + labels.logsumexp, target, rtol=0, atol=5e-6)
    stored = np.take_along_axis(scores, labels.items.astype(np.int64), 1)
    rounding = 2.0**-10 + 1e-5
    assert (np.abs(labels.logprobs + labels.logsumexp[:, None] - stored) <= rounding).all()
    shifted = np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1)
    np.testing.assert_allclose(labels.logsumexp, shifted, rtol=1e-6)


def test_the_manifest_says_what_the_labels_were_made_from(artifact, world):
    assert artifact.inputs["corpus"] == world.corpus.key
    assert artifact.inputs["teacher"] == {
        name: sha256_file(world.teacher / name) for name in ("config.json", "model.safetensors")
    }
    assert artifact.inputs["top_k"] == K
    assert sum(artifact.files[name].rows for name in part_names(artifact)) == world.corpus.n_positions


# --- what must not change a label


@pytest.fixture
def label(world, tmp_path):
    """A function that labels the world with some settings; returns the artifact."""

    def run(place="one", advance=lambda _rows, _bytes: None, reuse=lambda _rows: None, **settings):
        chosen = LabelSettings(**({"top_k": K, "shard_rows": 200} | settings))
        store = Store(tmp_path / place)
        cpu = torch.device("cpu")
        files = folder_files(world.teacher, (CONFIG, WEIGHTS), "teacher")
        address = label_address("uni", "tiny", chosen, "unisrec", digests(files), {}, world.corpus.key, "text")
        opening = Opening(None, files, world.corpus, world.text, cpu)
        return label_corpus(store, address, world.corpus, chosen, lambda: open_teacher(opening), cpu, advance, reuse)

    return run


def stored_digests(artifact):
    return {name: receipt.sha256 for name, receipt in artifact.files.items()}


def test_the_batch_size_changes_no_byte(label):
    found = [label(f"batch-{size}", batch_size=size) for size in (1, 7, 64)]
    assert len(stored_digests(found[0])) == 5
    assert stored_digests(found[0]) == stored_digests(found[1]) == stored_digests(found[2])
    assert found[0].key == found[1].key == found[2].key


def test_the_number_of_threads_changes_no_byte(label):
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(stored_digests(label(f"threads-{threads}")))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_the_cut_into_shards_changes_no_row(label, world, labels):
    for rows in (37, 10_000):
        found = read_labels(label(f"rows-{rows}", shard_rows=rows), world.corpus)
        for name, column in vars(labels).items():
            np.testing.assert_array_equal(getattr(found, name), column, err_msg=f"{name} at {rows}")


# --- interrupted between two shards


class Interrupted(Exception):
    pass


def stop_after(shards):
    left = iter(range(shards - 1))

    def advance(_rows, _bytes):
        if next(left, None) is None:
            raise Interrupted

    return advance


def test_shards_of_another_cut_are_not_counted_as_progress(label, tmp_path):
    with pytest.raises(Interrupted):
        label(shard_rows=8, advance=stop_after(5))
    (partial,) = tmp_path.glob("one/labels/*/*/.key=*.partial")
    draft = Draft(None, partial, None)
    assert shards_done(draft)[0] == 5
    with pytest.raises(Interrupted):
        label(shard_rows=100, advance=stop_after(2))
    assert shards_done(draft) == (2, 7)


def test_an_interrupted_run_does_not_ask_the_teacher_for_finished_shards_again(label, world, tmp_path):
    with pytest.raises(Interrupted):
        label(shard_rows=100, advance=stop_after(4))
    (partial,) = tmp_path.glob("one/labels/*/*/.key=*.partial")
    before = {path.name: path.stat().st_mtime_ns for path in partial.glob("part-*")}
    reported, reused = [], []
    artifact = label(shard_rows=100, advance=lambda rows, size: reported.append((rows, size)), reuse=reused.append)
    assert len(before) == 4
    assert {name: (artifact.path / name).stat().st_mtime_ns for name in before} == before
    receipts = [artifact.files[name] for name in part_names(artifact)]
    assert reused == [receipt.rows for receipt in receipts[:4]]
    assert reported == [(receipt.rows, receipt.bytes) for receipt in receipts[4:]]


# --- settings that do


@pytest.mark.parametrize(("splits", "rows"), [(("train",), 4), (("valid", "test"), 200), (("test",), 200)])
def test_only_the_positions_of_the_chosen_splits_are_stored(label, world, labels, splits, rows):
    """The first users are too short to have a training position, so the first small shard of these has no rows."""
    artifact = label(splits=splits, shard_rows=rows)
    assert (artifact.files["part-00000.parquet"].rows == 0) == (rows == 4)
    found = read_labels(artifact, world.corpus)
    kept = np.isin(labels.split, [SPLITS.index(split) for split in splits])
    expected = labels.take(np.flatnonzero(kept))
    for name, column in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), column, err_msg=name)


@pytest.mark.parametrize("precision", list(ROUNDINGS))
def test_the_precision_rounds_the_log_probabilities_and_nothing_else(label, world, labels, logprobs, precision):
    found = read_labels(label(precision=precision), world.corpus)
    exact = np.take_along_axis(logprobs, labels.items.astype(np.int64), 1)
    np.testing.assert_array_equal(found.logprobs, ROUNDINGS[precision](found.logprobs))
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "exact": 2.0**-24}
    bound = 2.0**-10 if precision == "fixed" else unit[precision] * np.abs(exact)
    assert (np.abs(found.logprobs - exact) <= bound + 1e-9).all()
    for name in ("items", "state", "logsumexp", "kept_mass", "target_logprob", "target_rank", "entropy"):
        np.testing.assert_array_equal(getattr(found, name), getattr(labels, name), err_msg=name)


def test_without_state_no_state_is_stored(label, world):
    assert read_labels(label(state=False), world.corpus).state is None


def test_a_top_k_beyond_the_catalogue_stores_the_catalogue(label, world):
    found = read_labels(label(top_k=10_000), world.corpus)
    assert found.k == world.corpus.n_items
    assert (np.sort(found.items, axis=1) == np.arange(world.corpus.n_items)).all()
    np.testing.assert_allclose(found.kept_mass, 1, rtol=1e-6)
    assert found.kept_mass.max() <= 1
