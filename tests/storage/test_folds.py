"""How users are split in folds: by their identifiers alone, evenly, and without a trace of one fold in the others."""

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckd.storage.artifact import Artifact
from ckd.storage.corpus import SPLITS, Corpus, training_popularity
from ckd.storage.folds import Fold, all_folds, fold_of
from ckd.storage.labels import FOLDS, LabelBlock, fold_of_rows, in_order

N_ITEMS = 9
IDS = st.lists(st.text(max_size=8), min_size=1, max_size=30, unique=True)
FOLD_COUNTS = st.integers(2, 7)


def corpus_of(user_ids, seed=0):
    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, 8, len(user_ids))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    sequence = draw.integers(0, N_ITEMS, offsets[-1]).astype(np.int32)
    popularity = training_popularity(sequence, lengths, N_ITEMS)
    items = pa.table({"item": np.arange(N_ITEMS, dtype=np.int32), "popularity": popularity})
    return Corpus("key", items, pa.array(user_ids), offsets, sequence)


def sequences(corpus):
    ids = corpus.user_ids.to_pylist()
    return {user: corpus.sequence_of(number).tolist() for number, user in enumerate(ids)}


def test_a_fold_of_today_is_a_fold_of_tomorrow():
    """Another rule would mix users that a stored teacher has seen with those that it has not."""
    assert [fold_of(user, 5) for user in ("ä12", "12", 12, "A2SUAM1J3GNN3B")] == [4, 3, 3, 1]


@given(IDS, FOLD_COUNTS)
def test_the_fold_of_a_user_is_the_same_in_any_order_and_any_corpus(user_ids, of):
    numbers = dict(zip(user_ids, corpus_of(user_ids).folds(of).tolist(), strict=True))
    assert set(numbers.values()) <= set(range(1, of + 1))
    turned = corpus_of(user_ids[::-1]).folds(of).tolist()
    assert dict(zip(user_ids[::-1], turned, strict=True)) == numbers
    fewer = user_ids[: len(user_ids) // 2 + 1]
    assert corpus_of(fewer).folds(of).tolist() == [numbers[user] for user in fewer]


@given(st.integers(0, 2**40), FOLD_COUNTS)
def test_a_whole_number_is_in_the_fold_of_its_digits(number, of):
    assert fold_of(number, of) == fold_of(str(number), of)
    assert corpus_of([number]).folds(of).tolist() == corpus_of([str(number)]).folds(of).tolist()


@given(st.text(max_size=5), FOLD_COUNTS)
def test_the_folds_are_of_like_size(prefix, of):
    """Of 2,000 users each fold has its share but for five standard deviations of chance."""
    n = 2_000
    sizes = np.bincount([fold_of(f"{prefix}{number}", of) for number in range(n)], minlength=of + 1)
    assert sizes[0] == 0
    share = 1 / of
    assert (np.abs(sizes[1:] - n * share) < 5 * np.sqrt(n * share * (1 - share))).all()


@pytest.mark.parametrize("users", [["ä", "", "u 1", "'x'", "日本"], [0, 7, 123_456_789_012]])
def test_the_rule_can_be_asked_in_sql_as_its_docstring_says(users):
    users_of_sql = pa.table({"user_id": users})  # noqa: F841 - DuckDB finds it by its name
    rule = "1 + ('0x' || sha256(user_id::VARCHAR)[:16])::UBIGINT % of"
    assert f"``{rule}``" in fold_of.__doc__
    with duckdb.connect() as connection:
        found = connection.sql(f"select {rule} from (select user_id, 5 as of from users_of_sql)").fetchall()
    assert [int(number) for (number,) in found] == [fold_of(user, 5) for user in users]


@given(IDS, FOLD_COUNTS)
def test_outside_and_inside_of_a_fold_make_up_the_domain_for_every_fold_once(user_ids, of):
    corpus = corpus_of(user_ids)
    everyone = sequences(corpus)
    inside_once = []
    for fold in all_folds(of):
        inside, outside = corpus.inside(fold), corpus.outside(fold)
        assert sequences(inside) | sequences(outside) == everyone
        assert sequences(inside).keys().isdisjoint(sequences(outside))
        assert list(sequences(inside)) == [user for user in user_ids if fold_of(user, of) == fold.number]
        assert list(sequences(outside)) == [user for user in user_ids if fold_of(user, of) != fold.number]
        inside_once += list(sequences(inside))
    assert sorted(inside_once) == sorted(user_ids)


@given(IDS, FOLD_COUNTS)
def test_what_is_known_of_the_items_is_counted_without_the_fold(user_ids, of):
    corpus = corpus_of(user_ids)
    for fold in all_folds(of):
        others = [items[:-2] for user, items in sequences(corpus).items() if fold_of(user, of) != fold.number]
        counted = np.bincount(np.concatenate([np.empty(0, int), *others]).astype(int), minlength=N_ITEMS)
        for part in (corpus.outside(fold), corpus.inside(fold)):
            assert part.items["popularity"].to_pylist() == counted.tolist()
            assert part.items["item"].equals(corpus.items["item"])


def test_a_fold_says_which_it_is():
    assert [str(fold) for fold in all_folds(2)] == ["fold 1 of 2", "fold 2 of 2"]
    assert str(Fold(3, 5)) == "fold 3 of 5"


# --- of label rows


def block_of(corpus, rows):
    at = corpus.positions()
    n = len(rows)
    columns = {name: column[rows] for name, column in vars(at).items()}
    wide = {"items": np.zeros((n, 2), np.int32), "logprobs": np.zeros((n, 2), np.float32)}
    floats = dict.fromkeys(("logsumexp", "kept_mass", "target_logprob", "entropy"), np.zeros(n, np.float32))
    return LabelBlock(**columns, **wide, **floats, target_rank=np.asarray(rows, np.int32), state=None)


@given(IDS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_blocks_joined_are_sorted_by_user_and_position_and_rows_stay_whole(user_ids, parts, draw):
    corpus = corpus_of(user_ids)
    rows = list(range(corpus.n_positions))
    draw.shuffle(rows)
    joined = in_order([block_of(corpus, rows[part::parts]) for part in range(parts)])
    assert joined.target_rank.tolist() == list(range(corpus.n_positions))
    for name, column in vars(corpus.positions()).items():
        np.testing.assert_array_equal(getattr(joined, name), column)


@given(IDS, FOLD_COUNTS)
def test_a_training_label_is_of_the_users_fold_and_any_other_of_the_teacher_of_all_users(user_ids, of):
    corpus = corpus_of(user_ids)
    block = block_of(corpus, np.arange(corpus.n_positions))
    found = fold_of_rows(Artifact(None, {"facts": {FOLDS: of}}), block, corpus)
    for user, split, number in zip(block.user, block.split, found, strict=True):
        assert number == (fold_of(user_ids[user], of) if SPLITS[split] == "train" else 0)
    assert fold_of_rows(Artifact(None, {"facts": {}}), block, corpus) is None
