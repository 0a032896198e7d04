"""Coding and order, on arbitrary interactions."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.prepare.build import build_corpus
from ckd.stages.prepare.raw import RawDomain
from ckd.storage.corpus import MIN_LENGTH, TEXT_FIELDS

IDS = st.one_of(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3), unique=True, min_size=1),
    st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, min_size=1),
)


@st.composite
def domains(draw):
    user_ids, item_ids = draw(IDS), draw(IDS)
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, len(user_ids) - 1),
                st.integers(0, len(item_ids) - 1),
                st.integers(-2, 2),
                st.sampled_from([0.0, 0.5]),
            ),
            max_size=60,
        )
    )
    user, item, whole, fraction = (np.array([row[part] for row in rows]) for part in range(4))
    texts = {name: pa.nulls(len(item_ids), pa.large_string()) for name in TEXT_FIELDS}
    return RawDomain(
        items=pa.table({"item_id": pa.array(item_ids), **texts}),
        user_ids=pa.array(user_ids),
        user=user.astype(np.int64),
        item=item.astype(np.int64),
        whole=whole.astype(np.int64),
        fraction=fraction.astype(np.float64),
        rejected={},
    )


def expected_histories(raw, kept):
    """The plain way: sort each user's rows by time, file order among ties."""
    histories = {}
    for row in sorted(kept, key=lambda row: (raw.whole[row], raw.fraction[row], row)):
        user = raw.user_ids[int(raw.user[row])].as_py()
        histories.setdefault(user, []).append(raw.items["item_id"][int(raw.item[row])].as_py())
    return histories


@given(domains())
def test_codes_map_back_to_the_raw_identifiers_in_chronological_order(raw):
    built = build_corpus(raw, 1)
    lengths = np.bincount(raw.user, minlength=1)
    kept = [row for row in range(len(raw.user)) if lengths[raw.user[row]] >= MIN_LENGTH]
    ids = built.items["item_id"].to_pylist()
    histories = {row["user_id"]: [ids[code] for code in row["items"]] for row in built.sequences.to_pylist()}
    assert histories == expected_histories(raw, kept)


@given(domains(), st.integers(1, 3))
def test_codes_are_dense_and_ranked(raw, k):
    built = build_corpus(raw, k)
    assert built.items["item"].to_pylist() == list(range(built.items.num_rows))
    used = {code for codes in built.sequences["items"].to_pylist() for code in codes}
    assert used == set(range(built.items.num_rows)), "only items with interactions are in the catalogue"
    for ids in (built.items["item_id"].to_pylist(), built.sequences["user_id"].to_pylist()):
        keys = [value.encode() if isinstance(value, str) else value for value in ids]
        assert keys == sorted(set(keys))


@given(domains(), st.integers(1, 3))
def test_the_core_and_the_shortest_length_hold_at_the_end(raw, k):
    built = build_corpus(raw, k)
    sequences = built.sequences["items"].to_pylist()
    assert all(len(codes) >= max(k, MIN_LENGTH) for codes in sequences)
    flat = [code for codes in sequences for code in codes]
    assert all(flat.count(code) >= k for code in set(flat))


@given(domains())
def test_popularity_leaves_out_the_last_two_of_each_user(raw):
    built = build_corpus(raw, 1)
    trained = [code for codes in built.sequences["items"].to_pylist() for code in codes[:-2]]
    assert built.items["popularity"].to_pylist() == [trained.count(code) for code in range(built.items.num_rows)]
