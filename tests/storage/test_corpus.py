"""Positions, splits and ranges of a corpus; what is written is what is read."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckd.storage.corpus import MIN_LENGTH, SPLITS, TEXT_FIELDS, Corpus, read_corpus, split_of, write_corpus
from ckd.storage.errors import DamagedArtifact
from ckd.storage.keys import Address
from ckd.storage.store import Store

LENGTHS = st.lists(st.integers(MIN_LENGTH, 12), min_size=1, max_size=30)
ADDRESS = Address("corpus", {"test": 1})


def corpus_of(lengths, seed=0):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    sequence = np.random.default_rng(seed).integers(0, 50, offsets[-1]).astype(np.int32)
    user_ids = pa.array([f"u{number:03d}" for number in range(len(lengths))])
    items = pa.table({"item": pa.array(range(50), pa.int32())})
    return Corpus("key", items, user_ids, offsets, sequence)


def tables_of(corpus):
    texts = {name: pa.nulls(corpus.n_items, pa.string()) for name in TEXT_FIELDS}
    codes = corpus.items["item"]
    items = pa.table({"item": codes, "item_id": codes.cast(pa.string()), **texts, "popularity": codes})
    offsets = pa.array(corpus.offsets.astype(np.int32))
    times = pa.array(np.arange(len(corpus.sequence)))
    sequences = pa.table(
        {
            "user_id": corpus.user_ids,
            "items": pa.ListArray.from_arrays(offsets, pa.array(corpus.sequence)),
            "timestamps": pa.ListArray.from_arrays(offsets, times),
        }
    )
    return items, sequences


@given(LENGTHS)
def test_each_sequence_has_one_valid_and_one_test_position_after_all_of_training(lengths):
    positions = corpus_of(lengths).positions()
    for user, length in enumerate(lengths):
        mine = positions.user == user
        assert positions.position[mine].tolist() == list(range(1, length))
        names = [SPLITS[code] for code in positions.split[mine]]
        assert names == ["train"] * (length - 3) + ["valid", "test"]


@given(LENGTHS)
def test_a_target_is_the_item_that_followed(lengths):
    corpus = corpus_of(lengths)
    positions = corpus.positions()
    assert len(positions) == corpus.n_positions
    for user, position, target in zip(positions.user, positions.position, positions.target, strict=True):
        assert corpus.sequence_of(user)[position] == target


@given(LENGTHS, st.data())
def test_positions_of_some_users_are_a_part_of_all(lengths, data):
    corpus = corpus_of(lengths)
    first = data.draw(st.integers(0, len(lengths)))
    last = data.draw(st.integers(first, len(lengths)))
    part, whole = corpus.positions(first, last), corpus.positions()
    rows = slice(corpus.position_offsets[first], corpus.position_offsets[last])
    for name in ("user", "position", "split", "target"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[rows])
        assert getattr(part, name).dtype == getattr(whole, name).dtype


@given(st.integers(2, 100))
def test_split_of_counts_from_the_end(length):
    split = split_of(np.arange(1, length), np.full(length - 1, length))
    assert split.dtype == np.int8
    assert split[::-1].tolist() == [2, 1, *[0] * length][: length - 1]


@given(LENGTHS, st.integers(1, 80))
def test_ranges_cover_all_users_once_in_order(lengths, rows):
    ranges = list(corpus_of(lengths).ranges(rows))
    assert [user for first, last in ranges for user in range(first, last)] == list(range(len(lengths)))
    assert all(first < last for first, last in ranges)


@given(LENGTHS, st.integers(1, 80))
def test_ranges_hold_about_the_rows_asked_for(lengths, rows):
    corpus = corpus_of(lengths)
    for first, last in corpus.ranges(rows):
        assert len(corpus.positions(first, last)) < rows + max(lengths)


@given(LENGTHS, st.integers(1, 80))
def test_ranges_depend_on_lengths_and_rows_only(lengths, rows):
    first, second = corpus_of(lengths, seed=1), corpus_of(lengths, seed=2)
    assert list(first.ranges(rows)) == list(second.ranges(rows))


@given(LENGTHS, LENGTHS, st.integers(1, 80))
def test_users_that_come_later_do_not_move_the_ranges_before(lengths, more, rows):
    before = list(corpus_of(lengths).ranges(rows))
    after = list(corpus_of([*lengths, *more]).ranges(rows))
    assert after[: len(before) - 1] == before[:-1]


def test_what_is_written_is_read(tmp_path):
    corpus = corpus_of([3, 7, 4])
    with Store(tmp_path).draft(ADDRESS) as draft:
        write_corpus(draft, *tables_of(corpus))
        artifact = draft.commit()
    read = read_corpus(artifact)
    assert read.key == ADDRESS.key
    assert read.user_ids.to_pylist() == corpus.user_ids.to_pylist()
    assert read.items["item_id"].to_pylist() == [str(code) for code in range(50)]
    np.testing.assert_array_equal(read.offsets, corpus.offsets)
    np.testing.assert_array_equal(read.sequence, corpus.sequence)
    assert (read.offsets.dtype, read.sequence.dtype) == (np.int64, np.int32)


def test_more_users_than_one_row_group_are_read_in_order(tmp_path):
    corpus = corpus_of([3, 4, 5, 6] * 20_000)
    with Store(tmp_path).draft(ADDRESS) as draft:
        write_corpus(draft, *tables_of(corpus))
        artifact = draft.commit()
    read = read_corpus(artifact)
    np.testing.assert_array_equal(read.offsets, corpus.offsets)
    np.testing.assert_array_equal(read.sequence, corpus.sequence)


@pytest.mark.parametrize("name", ["items.parquet", "sequences.parquet"])
def test_a_flipped_bit_is_noticed(tmp_path, name):
    with Store(tmp_path).draft(ADDRESS) as draft:
        write_corpus(draft, *tables_of(corpus_of([3, 4])))
        artifact = draft.commit()
    damaged = bytearray((artifact.path / name).read_bytes())
    damaged[len(damaged) // 3] ^= 1
    (artifact.path / name).write_bytes(damaged)
    with pytest.raises(DamagedArtifact, match=f"{name} is damaged"):
        read_corpus(artifact)
