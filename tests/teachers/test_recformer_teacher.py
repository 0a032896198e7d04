"""The frozen Recformer of a domain as `ckd precompute` asks it: whatever only changes speed changes no bit."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch

from ckd.stages.precompute.address import label_address
from ckd.stages.precompute.label import label_corpus
from ckd.stages.precompute.settings import LabelSettings
from ckd.stages.teachers.contract import Opening
from ckd.stages.teachers.frozen import CONFIG, digests
from ckd.stages.teachers.recformer import Settings, open_teacher
from ckd.stages.teachers.recformer.config import load_config
from ckd.stages.teachers.recformer.teacher import USERS_PER_BLOCK
from ckd.storage.corpus import SPLITS
from ckd.storage.labels import read_labels
from ckd.storage.store import Store

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def opening(world, make_recformer, tmp_path_factory):
    settings = Settings(checkpoint=str(make_recformer(tmp_path_factory.mktemp("recformer"))), precision="float32")
    return Opening(settings, settings.files("tiny", "teachers.rec"), world.corpus, None, CPU)


@pytest.fixture(scope="module")
def large(world, opening):
    """The world's users three times over, so that they fill several blocks, the last one partly."""
    corpus = world.corpus
    offsets = np.unique(np.concatenate([corpus.offsets + turn * corpus.offsets[-1] for turn in range(3)]))
    users = pa.array([f"user-{number:03d}" for number in range(3 * corpus.n_users)])
    tripled = replace(corpus, user_ids=users, offsets=offsets, sequence=np.tile(corpus.sequence, 3))
    assert USERS_PER_BLOCK < tripled.n_users < 4 * USERS_PER_BLOCK
    assert tripled.n_users % USERS_PER_BLOCK
    return replace(opening, corpus=tripled)


@pytest.fixture
def label(opening, tmp_path):
    """A function that labels the world with some settings; returns the artifact."""

    def run(place, opening=opening, **settings):
        chosen = LabelSettings(**({"top_k": 7, "shard_rows": 200} | settings))
        files, corpus = digests(opening.files), opening.corpus
        scoring = opening.settings.scoring(lambda: False)
        address = label_address("rec", "tiny", chosen, "recformer", files, scoring, corpus.key, None)
        return label_corpus(Store(tmp_path / place), address, corpus, chosen, lambda: open_teacher(opening), CPU)

    return run


def stored_digests(artifact):
    return {name: receipt.sha256 for name, receipt in artifact.files.items()}


def all_queries(opening, *edges):
    teacher, edges = open_teacher(opening), [0, *edges, opening.corpus.n_users]
    return torch.cat([teacher.queries(*ends, 16) for ends in pairwise(edges)])


def test_the_batch_size_changes_no_byte(label):
    found = [label(f"batch-{size}", batch_size=size) for size in (1, 64)]
    assert len(stored_digests(found[0])) == 5
    assert stored_digests(found[0]) == stored_digests(found[1])
    assert found[0].key == found[1].key


def test_the_number_of_threads_changes_no_byte(label, world, make_recformer, tmp_path):
    """In a network of these widths one matrix product on several threads would: it sums in another order."""
    folder = make_recformer(tmp_path / "wide", hidden=40, heads=4, inner=72, layers=3, window=6, max_tokens=90)
    settings = Settings(checkpoint=str(folder), precision="float32")
    wide = Opening(settings, settings.files("tiny", "teachers.rec"), world.corpus, None, CPU)
    before, found, queries = torch.get_num_threads(), [], []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(stored_digests(label(f"threads-{threads}", wide)))
            queries.append(all_queries(wide))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]
    assert torch.equal(queries[0], queries[1])
    assert torch.equal(queries[0], queries[2])


def test_the_cut_into_shards_changes_no_row(label, opening):
    first, second = (read_labels(label(f"rows-{rows}", shard_rows=rows), opening.corpus) for rows in (37, 10_000))
    for name, column in vars(first).items():
        np.testing.assert_array_equal(getattr(second, name), column, err_msg=name)


def test_queries_do_not_depend_on_where_users_are_cut(large):
    edges = [(), (1,), (USERS_PER_BLOCK,), (5, 9, USERS_PER_BLOCK + 1, 2 * USERS_PER_BLOCK + 7)]
    whole, *cut = (all_queries(large, *each) for each in edges)
    for each in cut:
        assert torch.equal(each, whole)


def test_queries_are_those_of_each_history_by_itself(opening):
    teacher, positions = open_teacher(opening), opening.corpus.positions()
    found = all_queries(opening)
    alone = torch.cat(
        [
            teacher.queries_at(positions.user[row : row + 1], positions.position[row : row + 1])
            for row in range(0, len(positions), 7)
        ]
    )
    torch.testing.assert_close(found[::7], alone, rtol=1e-6, atol=1e-5)
    together = teacher.queries_at(positions.user, positions.position)
    torch.testing.assert_close(found, together, rtol=1e-6, atol=1e-5)
    tau = load_config(opening.files[CONFIG]).temp
    torch.testing.assert_close(found.norm(dim=1), torch.full((len(found),), 1 / tau))


@pytest.mark.parametrize("splits", [("test",), ("valid", "train")])
def test_the_chosen_splits_are_labelled_as_among_all_splits(label, opening, splits):
    some = read_labels(label("some", replace(opening, splits=splits), splits=splits), opening.corpus)
    every = read_labels(label("all"), opening.corpus)
    rows = np.isin(every.split, [SPLITS.index(split) for split in splits])
    assert 0 < rows.sum() < len(rows)
    for name, column in vars(every).items():
        np.testing.assert_array_equal(getattr(some, name), column[rows], err_msg=name)


def test_item_vectors_are_unit_vectors_and_those_given_are_taken_as_they_are(opening):
    vectors = open_teacher(opening).item_vectors()
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    given = vectors.numpy()[::-1].copy()
    np.testing.assert_array_equal(open_teacher(replace(opening, item_vectors=given)).item_vectors().numpy(), given)


def test_items_of_one_text_have_one_vector(opening, world):
    ids = world.corpus.items["item_id"].to_pylist()
    vectors = open_teacher(opening).item_vectors()
    torch.testing.assert_close(vectors[ids.index("item-11")], vectors[ids.index("item-30")])


@pytest.mark.parametrize("precision", ["bfloat16", "float64"])
def test_the_precision_changes_bits_and_hardly_a_score(opening, precision):
    scores = {}
    for name in ("float32", precision):
        changed = replace(opening, settings=opening.settings.model_copy(update={"precision": name}))
        scores[name] = all_queries(changed) @ open_teacher(changed).item_vectors().T
    assert not torch.equal(scores["float32"], scores[precision])
    atol = {"bfloat16": 0.8, "float64": 1e-4}[precision]
    torch.testing.assert_close(scores[precision], scores["float32"], rtol=0, atol=atol)


def test_a_served_teacher_runs_in_float32(opening):
    rounded = replace(opening, settings=opening.settings.model_copy(update={"precision": "bfloat16"}))
    assert torch.equal(all_queries(replace(rounded, serving=True)), all_queries(opening))
    assert not torch.equal(all_queries(rounded), all_queries(opening))


def test_automatic_precision_is_bfloat16_on_a_gpu_only(opening):
    automatic = opening.settings.model_copy(update={"precision": "auto"})
    assert automatic.scoring(lambda: True) == {"precision": "bfloat16"}
    assert automatic.scoring(lambda: False) == {"precision": "float32"}
    assert opening.settings.scoring(lambda: True) == {"precision": "float32"}
