"""Label rows: what is written is what is read."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ckd.storage.corpus import Corpus
from ckd.storage.errors import DamagedArtifact
from ckd.storage.keys import Address
from ckd.storage.labels import (
    LabelBlock,
    part_name,
    part_names,
    read_labels,
    write_part,
)
from ckd.storage.store import Store
from ckd.storage.vectors import read_vectors, write_vectors

ADDRESS = Address("labels", {"test": 1}, (("teacher", "uni"), ("domain", "office")))
K, D, N_ITEMS = 3, 4, 9


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def corpus_of(user_ids, lengths, item_ids=None):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    sequence = np.random.default_rng(0).integers(0, N_ITEMS, offsets[-1]).astype(np.int32)
    ids = [f"i{code}" for code in range(N_ITEMS)] if item_ids is None else item_ids
    items = pa.table({"item": pa.array(range(len(ids)), pa.int32()), "item_id": ids})
    return Corpus("key-of-the-corpus", items, pa.array(user_ids), offsets, sequence)


def block_of(corpus, state=True):
    positions, draw = corpus.positions(), np.random.default_rng(1)
    n = len(positions)
    numbers = draw.normal(size=(5, n)).astype(np.float32)
    return LabelBlock(
        user=positions.user,
        position=positions.position,
        split=positions.split,
        target=positions.target,
        items=np.argsort(draw.random((n, N_ITEMS)), axis=1)[:, :K].astype(np.int32),
        logprobs=-np.sort(draw.random((n, K)), axis=1).astype(np.float32),
        logsumexp=numbers[0],
        kept_mass=numbers[1],
        target_logprob=numbers[2],
        target_rank=draw.integers(1, N_ITEMS, n).astype(np.int32),
        entropy=numbers[4],
        state=draw.normal(size=(n, D)).astype(np.float32) if state else None,
    )


def written(store, corpus, *blocks):
    with store.draft(ADDRESS) as draft:
        for number, block in enumerate(blocks):
            write_part(draft, number, block, corpus, {})
        return draft.commit()


def assert_equal(found, expected):
    for name, column in vars(expected).items():
        got = getattr(found, name)
        if column is None:
            assert got is None
        else:
            assert got.dtype == column.dtype, name
            np.testing.assert_array_equal(got, column, err_msg=name)


# --- round trip


@pytest.mark.parametrize("user_ids", [["a", "b", "ü"], [-5, 3, 2**40]])
@pytest.mark.parametrize("state", [True, False])
def test_what_is_written_is_what_is_read(store, user_ids, state):
    corpus = corpus_of(user_ids, [3, 6, 4])
    block = block_of(corpus, state)
    half = np.arange(len(block)) < 5
    artifact = written(store, corpus, block.take(np.flatnonzero(half)), block.take(np.flatnonzero(~half)))
    assert part_names(artifact) == ["part-00000.parquet", "part-00001.parquet"]
    assert [artifact.files[name].rows for name in part_names(artifact)] == [5, len(block) - 5]
    assert_equal(read_labels(artifact, corpus), block)


def test_only_the_wide_columns_that_are_asked_for_are_loaded(store):
    corpus = corpus_of(["a", "b"], [3, 6])
    block = block_of(corpus)
    artifact = written(store, corpus, block)
    nothing = replace(block, items=block.items[:, :0], logprobs=block.logprobs[:, :0], state=None)
    assert_equal(read_labels(artifact, corpus, []), nothing)
    assert_equal(read_labels(artifact, corpus, ["state"]), replace(nothing, state=block.state))
    assert_equal(
        read_labels(artifact, corpus, ["items", "logprobs"]),
        replace(nothing, items=block.items, logprobs=block.logprobs),
    )


def test_a_part_without_rows_is_read_as_nothing(store):
    corpus = corpus_of(["a", "b"], [3, 6])
    block = block_of(corpus)
    artifact = written(store, corpus, block.take(np.arange(0)), block)
    assert_equal(read_labels(artifact, corpus), block)


def test_rows_belong_to_users_by_identifier_so_a_teacher_may_lack_positions_and_users(store):
    """Written against one corpus, read against one that has more users before, between and after."""
    small, large = corpus_of(["b", "d"], [5, 4]), corpus_of(["a", "b", "c", "d", "e"], [3, 5, 3, 4, 3])
    block = block_of(small).take(np.array([0, 2, 3, 5]))
    found = read_labels(written(store, small, block), large)
    assert found.user.tolist() == [1, 1, 1, 3]
    assert_equal(replace(found, user=block.user), block)


def test_targets_are_matched_by_identifier_too(store):
    corpus = corpus_of(["a"], [6])
    block = block_of(corpus)
    shifted = corpus_of(["a"], [6], ["a-new-first-item", *(f"i{code}" for code in range(N_ITEMS))])
    found = read_labels(written(store, corpus, block), shifted)
    assert found.target.tolist() == (block.target + 1).tolist()


def test_labels_of_a_user_who_is_not_in_the_corpus_are_refused(store):
    corpus = corpus_of(["a", "b"], [3, 3])
    artifact = written(store, corpus, block_of(corpus))
    with pytest.raises(DamagedArtifact, match=r"labels of users that are not in corpus key-of-the-corpu"):
        read_labels(artifact, corpus_of(["a", "c"], [3, 3]))


def test_labels_of_a_target_that_is_not_in_the_catalogue_are_refused(store):
    corpus = corpus_of(["a", "b"], [6, 6])
    artifact = written(store, corpus, block_of(corpus))
    with pytest.raises(DamagedArtifact, match=r"targets that are not in corpus key-of-the-corpu"):
        read_labels(artifact, corpus_of(["a", "b"], [6, 6], [f"other-{code}" for code in range(N_ITEMS)]))


def test_take_gives_rows_in_the_order_asked_for():
    block = block_of(corpus_of(["a", "b"], [5, 4]), state=False)
    taken = block.take(np.array([4, 0]))
    assert (len(taken), taken.k, taken.state) == (2, K, None)
    assert taken.position.tolist() == [block.position[4], block.position[0]]
    np.testing.assert_array_equal(taken.items, block.items[[4, 0]])


def test_item_vectors_come_back_bit_for_bit(store):
    vectors = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    with store.draft(ADDRESS) as draft:
        write_vectors(draft, vectors)
        artifact = draft.commit()
    np.testing.assert_array_equal(read_vectors(artifact), vectors)


# --- on disk


def test_numbers_are_split_by_byte_and_texts_are_dictionaries(store):
    corpus = corpus_of(["a", "b"], [30, 40])
    artifact = written(store, corpus, block_of(corpus))
    columns = pq.ParquetFile(artifact.path / part_name(0)).metadata.row_group(0)
    encodings = {
        columns.column(number).path_in_schema: columns.column(number).encodings for number in range(columns.num_columns)
    }
    assert {columns.column(number).compression for number in range(columns.num_columns)} == {"ZSTD"}
    texts = {"user_id", "split", "target"}
    for name, used in encodings.items():
        assert ("RLE_DICTIONARY" in used) == (name in texts), (name, used)
        assert ("BYTE_STREAM_SPLIT" in used) == (name not in texts), (name, used)
    assert {"items.list.element", "logprobs.list.element", "state.list.element"} <= encodings.keys()


def test_the_columns_have_the_types_that_other_readers_expect(store):
    corpus = corpus_of(["a", "b"], [3, 4])
    artifact = written(store, corpus, block_of(corpus))
    schema = pq.read_schema(artifact.path / part_name(0))
    assert {name: str(schema.field(name).type).replace("element", "item") for name in schema.names} == {
        "user_id": "string",
        "position": "int32",
        "split": "string",
        "target": "string",
        "items": "list<item: int32>",
        "logprobs": "list<item: float>",
        "logsumexp": "float",
        "kept_mass": "float",
        "target_logprob": "float",
        "target_rank": "int32",
        "entropy": "float",
        "state": f"fixed_size_list<item: float>[{D}]",
    }


def test_a_damaged_part_is_not_loaded(store):
    corpus = corpus_of(["a", "b"], [3, 4])
    artifact = written(store, corpus, block_of(corpus))
    path = artifact.path / part_name(0)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedArtifact, match=r"part-00000.parquet is damaged"):
        read_labels(artifact, corpus)
