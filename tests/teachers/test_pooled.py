"""Item vectors as a teacher: every query against a mean computed history by history, and what makes no difference."""

import numpy as np
import pytest
import torch

from ckd.stages.teachers.contract import Opening
from ckd.stages.teachers.pooled import DECAY, PooledSettings
from ckd.stages.teachers.pooled.teacher import PooledTeacher
from ckd.storage.errors import UserError

CPU = torch.device("cpu")
QUERIES = [{"query": "mean"}, {"query": "last"}, {"query": "decay"}, {"query": "decay", "decay": 0.8}]


def opened(world, settings, serving=False, vectors=None):
    opening = Opening(settings, {}, world.corpus, world.text, CPU, serving)
    return PooledTeacher.of(opening, world.text.vectors if vectors is None else vectors, "vectors")


def weights(settings, seen):
    """Weight of each item of a history, oldest first."""
    back = np.arange(seen)[::-1]
    if settings.query == "mean":
        return np.full(seen, 1 / seen)
    if settings.query == "last":
        return (back == 0).astype(float)
    raw = (settings.decay or DECAY) ** back
    return raw / raw.sum()


def unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def dense(corpus, vectors, settings):
    """Item vectors and the query of each position, one history at a time."""
    items = vectors.astype(np.float64)
    items = items - items.mean(0) if settings.center else items
    items = unit(items) if settings.similarity == "cosine" else items
    positions, queries = corpus.positions(), []
    for user, position in zip(positions.user, positions.position, strict=True):
        history = items[corpus.sequence_of(user)[:position][-settings.max_length :]]
        queries.append(weights(settings, len(history)) @ history)
    queries = np.stack(queries)
    return items, (unit(queries) if settings.similarity == "cosine" else queries) / settings.temperature


@pytest.mark.parametrize("max_length", [1, 3, 8, 50])
@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_the_query_of_a_history_is_the_weighted_mean_of_its_last_items(world, query, max_length):
    assert world.corpus.lengths.max() - 1 > 8 + 5
    settings = PooledSettings(**query, max_length=max_length, temperature=0.1)
    teacher = opened(world, settings)
    items, queries = dense(world.corpus, world.text.vectors, settings)
    np.testing.assert_allclose(teacher.item_vectors().numpy(), items, atol=1e-12)
    found = teacher.queries(0, world.corpus.n_users, 16).numpy()
    np.testing.assert_allclose(found, queries, atol=1e-10)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_similarity_and_centre_are_what_they_say(world, similarity, center):
    settings = PooledSettings(similarity=similarity, center=center, max_length=4, temperature=0.5)
    teacher = opened(world, settings)
    items, queries = dense(world.corpus, world.text.vectors, settings)
    scores = teacher.queries(0, world.corpus.n_users, 64) @ teacher.item_vectors().T
    np.testing.assert_allclose(scores.numpy(), queries @ items.T, atol=1e-9)


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_no_bit_depends_on_the_batch_or_on_which_users_are_asked_together(world, query):
    teacher = opened(world, PooledSettings(**query, max_length=5))
    everyone = teacher.queries(0, world.corpus.n_users, 64)
    for batch_size in (1, 7, 1000):
        assert torch.equal(teacher.queries(0, world.corpus.n_users, batch_size), everyone)
    offsets = world.corpus.position_offsets
    for first, last in [(0, 1), (3, 9), (17, world.corpus.n_users)]:
        assert torch.equal(teacher.queries(first, last, 3), everyone[offsets[first] : offsets[last]])


def test_the_query_at_a_position_is_the_row_of_that_position(world):
    teacher = opened(world, PooledSettings(max_length=5))
    everyone = teacher.queries(0, world.corpus.n_users, 64)
    users = np.array([0, 5, 17, 40], np.int32)
    for position in (world.corpus.lengths[users] - 1, np.ones(4, np.int64)):
        rows = torch.from_numpy(world.corpus.position_offsets[users] + position - 1)
        assert torch.equal(teacher.queries_at(users, position.astype(np.int32)), everyone[rows])


def test_labels_are_computed_in_float64_and_served_in_float32(world):
    for serving, dtype in ((False, torch.float64), (True, torch.float32)):
        teacher = opened(world, PooledSettings(), serving)
        assert (teacher.item_vectors().dtype, teacher.queries(0, 2, 4).dtype) == (dtype, dtype)
    assert teacher.n_parameters == world.text.vectors.size


def test_an_item_without_a_vector_scores_zero_and_harms_no_other(world):
    vectors = world.text.vectors.copy()
    vectors[:20] = 0
    teacher = opened(world, PooledSettings(center=False, max_length=3), vectors=vectors)
    scores = teacher.queries(0, world.corpus.n_users, 64) @ teacher.item_vectors().T
    assert bool(scores.isfinite().all())
    assert bool((scores[:, :20] == 0).all())
    assert not bool((scores[:, 20:] == 0).all())


def test_vectors_that_labels_cannot_hold_are_refused(world):
    large = PooledSettings(similarity="dot", temperature=1e-3)
    with pytest.raises(UserError, match=r"^vectors: vectors up to .* do not fit into the half precision of labels; "):
        opened(world, large, vectors=world.text.vectors * 1000)
    opened(world, large.model_copy(update={"similarity": "cosine"}), vectors=world.text.vectors * 1000)


# --- the key


def scoring(**settings):
    return PooledSettings(**settings).scoring(lambda: False)


def test_two_ways_to_say_the_same_have_one_key():
    assert scoring() == scoring(query="decay", decay=DECAY)
    assert scoring(query="last", max_length=3) == scoring(query="last", max_length=7)


@pytest.mark.parametrize(
    "changed",
    [
        {"query": "mean"},
        {"query": "last"},
        {"decay": 0.31},
        {"max_length": 7},
        {"similarity": "dot"},
        {"temperature": 0.9},
        {"center": not PooledSettings().center},
    ],
    ids=str,
)
def test_whatever_changes_scores_changes_the_key(changed):
    assert scoring(**changed) != scoring()


def test_a_decay_that_nothing_reads_is_a_contradiction():
    with pytest.raises(ValueError, match="decay belongs to query: decay, and query is mean"):
        PooledSettings(query="mean", decay=0.5)
