"""The passes of a causal encoder: every position once, and the same vectors as one pass per history."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.teachers.unisrec.checkpoint import load_config, load_model
from ckd.stages.teachers.unisrec.teacher import UniSRecTeacher
from ckd.stages.teachers.windows import batches, windows
from ckd.storage.corpus import Corpus

CPU = torch.device("cpu")


def corpus_of(lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    users = pa.array([f"u{n:03d}" for n in range(len(lengths))])
    sequence = np.arange(offsets[-1], dtype=np.int32)
    return Corpus("key", pa.table({"item": sequence}), users, offsets, sequence)


@given(st.lists(st.integers(3, 12), min_size=1, max_size=12), st.integers(1, 13), st.data())
def test_every_position_is_read_once_from_a_pass_over_the_last_items_of_its_history(lengths, max_length, data):
    corpus = corpus_of(lengths)
    first = data.draw(st.integers(0, len(lengths) - 1))
    last = data.draw(st.integers(first + 1, len(lengths)))
    positions = corpus.positions(first, last)
    passes = windows(corpus, first, last, max_length)
    assert passes.length.max() <= max_length
    seen = {}
    for start, length, row, reads in zip(*vars(passes).values(), strict=True):
        for back in range(reads):
            end = start + length - reads + back
            assert row + back not in seen
            seen[row + back] = corpus.sequence[start : end + 1].tolist()
    assert sorted(seen) == list(range(len(positions)))
    for row, (user, position) in enumerate(zip(positions.user, positions.position, strict=True)):
        history = corpus.sequence_of(user)[:position]
        assert seen[row] == history[-max_length:].tolist()


@given(st.lists(st.integers(3, 12), min_size=1, max_size=12), st.integers(1, 13), st.integers(1, 9))
def test_batches_hold_every_pass_once_and_the_longest_first(lengths, max_length, batch_size):
    corpus = corpus_of(lengths)
    passes = windows(corpus, 0, corpus.n_users, max_length)
    found = list(batches(passes, batch_size))
    order = np.concatenate(found)
    assert sorted(order.tolist()) == list(range(len(passes.length)))
    assert (np.diff(passes.length[order]) <= 0).all()
    assert {len(batch) for batch in found[:-1]} <= {batch_size}


@pytest.fixture(scope="module")
def model(world):
    return load_model(world.teacher, load_config(world.teacher), world.corpus.n_items).double()


def test_a_causal_pass_equals_one_pass_per_history_also_beyond_the_maximum_length(world, model):
    corpus, limit = world.corpus, model.settings.max_length
    assert corpus.lengths.max() - 1 > limit + 5
    teacher = UniSRecTeacher(model, corpus, world.text.vectors, CPU, torch.float64)
    found = teacher.queries(0, corpus.n_users, 16)
    table = model.item_table(torch.from_numpy(world.text.vectors).double())
    positions = corpus.positions()
    with torch.inference_mode():
        for row in range(len(positions)):
            history = corpus.sequence_of(positions.user[row])[: positions.position[row]][-limit:]
            own = model.encode(table[torch.from_numpy(history.astype(np.int64))].unsqueeze(0))[0, -1]
            expected = own / own.norm() / model.settings.temperature
            assert (found[row] - expected).abs().max() < 1e-9


def test_queries_of_some_users_are_the_rows_of_all_of_them(world, model):
    corpus = world.corpus
    teacher = UniSRecTeacher(model, corpus, world.text.vectors, CPU, torch.float64)
    everyone = teacher.queries(0, corpus.n_users, 64)
    offsets = corpus.position_offsets
    for first, last in [(0, 1), (3, 9), (17, corpus.n_users)]:
        some = teacher.queries(first, last, 3)
        torch.testing.assert_close(some, everyone[offsets[first] : offsets[last]], rtol=0, atol=1e-12)


def test_the_query_at_a_position_is_the_row_of_that_position(world, model):
    corpus = world.corpus
    teacher = UniSRecTeacher(model, corpus, world.text.vectors, CPU, torch.float64)
    users = np.array([0, 5, 17, 40], np.int32)
    for position in (corpus.lengths[users] - 1, np.ones(4, np.int64)):
        rows = corpus.position_offsets[users] + position - 1
        expected = teacher.queries(0, corpus.n_users, 16)[torch.from_numpy(rows)]
        found = teacher.queries_at(users, position.astype(np.int32))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_teacher_gives_vectors_of_the_type_it_was_opened_with(world):
    for dtype in (torch.float32, torch.float64):
        model = load_model(world.teacher, load_config(world.teacher), world.corpus.n_items)
        teacher = UniSRecTeacher(model, world.corpus, world.text.vectors, CPU, dtype)
        assert (teacher.item_vectors().dtype, teacher.queries(0, 2, 4).dtype) == (dtype, dtype)
        assert teacher.item_vectors().norm(dim=1).sub(1).abs().max() < 1e-5


def test_the_gate_noise_is_not_counted_among_the_parameters_that_score(world, model):
    teacher = UniSRecTeacher(model, world.corpus, world.text.vectors, CPU, torch.float64)
    everything = sum(tensor.numel() for tensor in model.parameters())
    assert teacher.n_parameters == everything - model.moe_adaptor.w_noise.numel()
