"""Slices, batches and histories against a plain loop over the sequences."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ckd.stages.batching import (
    at,
    encoded,
    flat_index,
    histories,
    length_groups,
    padded,
    random_batches,
    real_positions,
    training_windows,
)
from ckd.storage.corpus import Corpus


def corpus_of(lengths: list[int]) -> Corpus:
    """Sequences without a repeated item, so that a wrong slice can't look right."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = int(offsets[-1])
    codes = (np.arange(total, dtype=np.int32) + 1)[::-1].copy()
    items = pa.table({"item": pa.array(np.arange(total + 1, dtype=np.int32))})
    return Corpus("key", items, pa.array([f"u{user}" for user in range(len(lengths))]), offsets, codes)


sequence_lengths = st.lists(st.integers(3, 12), min_size=1, max_size=8)


@given(sequence_lengths, st.integers(1, 14), st.sampled_from([0, 2]))
def test_training_windows_are_the_last_training_positions_of_each_sequence(
    lengths: list[int], max_length: int, held_out: int
) -> None:
    assume(max(lengths) > held_out + 1)
    corpus = corpus_of(lengths)
    found = {}
    cut = training_windows(corpus, max_length, held_out)
    for user, start, length, position in zip(cut.user, cut.start, cut.length, cut.position, strict=True):
        inputs = corpus.sequence[start : start + length].tolist()
        targets = corpus.sequence[start + 1 : start + length + 1].tolist()
        found[int(user)] = (inputs, targets, int(position))
    wanted = {}
    for user, total in enumerate(lengths):
        known = corpus.sequence_of(user).tolist()[: total - held_out]
        pairs = list(zip(known[:-1], known[1:], range(1, len(known)), strict=True))[-max_length:]
        if pairs:
            wanted[user] = ([one for one, _, _ in pairs], [two for _, two, _ in pairs], pairs[0][2])
    assert found == wanted


@given(n=st.integers(0, 400), batch_size=st.integers(1, 7), seed=st.integers(0, 2**32 - 1))
def test_every_row_is_in_exactly_one_batch_and_all_but_the_last_are_full(n: int, batch_size: int, seed: int) -> None:
    batches = random_batches(n, batch_size, np.random.default_rng(seed))
    assert sorted(np.concatenate([np.zeros(0, np.int64), *batches]).tolist()) == list(range(n))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(0 < len(batch) <= batch_size for batch in batches)


def test_batches_depend_on_the_seed_alone_and_on_every_seed() -> None:
    first, again, other = (
        [batch.tolist() for batch in random_batches(200, 16, np.random.default_rng(seed))] for seed in (5, 5, 6)
    )
    assert first == again
    assert first != other


def test_random_batches_bring_any_two_rows_together_as_often() -> None:
    draw = np.random.default_rng(0)
    together = np.zeros((12, 12))
    for _ in range(2_000):
        for batch in random_batches(12, 4, draw):
            together[np.ix_(batch, batch)] += 1
    others = together[~np.eye(12, dtype=bool)] / 2_000
    # Three of the eleven others share a row's batch; five standard deviations.
    assert np.abs(others - 3 / 11).max() < 5 * (3 / 11 * 8 / 11 / 2_000) ** 0.5


def cost_of(groups: list[list[int]], per_pass: int) -> int:
    return sum(len(group) * max(group) + per_pass for group in groups)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(0, 60))
def test_no_cut_of_the_sorted_lengths_costs_less_than_the_groups(length: list[int], pass_cost: int) -> None:
    groups = length_groups(np.array(length, np.int64), pass_cost)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(length)))
    ordered = sorted(length)
    cuts = (
        [0, *[place for place in range(1, len(ordered)) if mask >> place & 1], len(ordered)]
        for mask in range(0, 1 << len(ordered), 2)
    )
    least = min(cost_of([ordered[a:b] for a, b in pairwise(cut)], pass_cost) for cut in cuts)
    assert cost_of([[length[row] for row in group] for group in groups], pass_cost) == least


@given(st.lists(st.integers(1, 90), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_what_is_encoded_in_groups_is_what_each_sequence_gives_alone(length: list[int], seed: int) -> None:
    codes = torch.from_numpy(np.random.default_rng(seed).integers(1, 1_000, (len(length), max(length))))
    shapes = []

    def encode(items: torch.Tensor) -> torch.Tensor:
        shapes.append(items.shape)
        return torch.stack([items.cumsum(1), items], 2)  # as a causal network: no position sees what comes after it

    found = encoded(encode, codes, np.array(length, np.int64))
    alone = [codes[row, :own] for row, own in enumerate(length)]
    assert torch.equal(found, torch.cat([torch.stack([items.cumsum(0), items], 1) for items in alone]))
    assert sum(rows for rows, _ in shapes) == len(length)


def test_a_few_long_sequences_do_not_pad_all_others() -> None:
    length, read = np.array([3] * 200 + [50] * 4), []

    def encode(items: torch.Tensor) -> torch.Tensor:
        read.append(items.numel())
        return items

    encoded(encode, torch.ones(len(length), 50, dtype=torch.int64), length)
    assert read == [600, 200]


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 9)), min_size=1, max_size=8))
def test_flat_index_lists_all_slices_one_after_the_other(slices: list[tuple[int, int]]) -> None:
    start, length = (np.array(column, np.int64) for column in zip(*slices, strict=True))
    assert flat_index(start, length).tolist() == [n for first, count in slices for n in range(first, first + count)]


@given(sequence_lengths, st.integers(1, 14), st.data())
def test_histories_are_the_last_items_before_the_target(
    lengths: list[int], max_length: int, data: st.DataObject
) -> None:
    corpus = corpus_of(lengths)
    users = np.arange(len(lengths), dtype=np.int32)
    position = np.array([data.draw(st.integers(1, total)) for total in lengths], np.int32)
    codes, ends = histories(corpus, users, position, max_length)
    for user, codes_of, end in zip(users, codes, ends, strict=True):
        wanted = corpus.sequence_of(user)[: position[user]][-max_length:]
        assert codes_of[: int(end) + 1].tolist() == wanted.tolist()
        assert not codes_of[int(end) + 1 :].any()
    assert codes.shape[1] == min(max_length, int(position.max()))


def test_padded_rows_hold_their_slice_and_then_zeros() -> None:
    length = np.array([2, 3, 1])
    codes, real = padded(np.arange(10, 20, dtype=np.int32), np.array([0, 7, 4]), length), real_positions(length)
    assert codes.tolist() == [[10, 11, 0], [17, 18, 19], [14, 0, 0]]
    assert real.tolist() == [[True, True, False], [True, True, True], [True, False, False]]


@pytest.mark.parametrize("index", [[0, 2], [1, 0]])
def test_at_takes_one_vector_of_each_row(index: list[int]) -> None:
    encoded = torch.arange(12).reshape(2, 3, 2)
    assert at(encoded, torch.tensor(index)).tolist() == [
        encoded[row, column].tolist() for row, column in enumerate(index)
    ]
