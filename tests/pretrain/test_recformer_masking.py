"""Whole-word masking and the vocabulary, by the authors' rules."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.teachers.recformer.masking import IGNORED, MOST, chosen_tokens, mask, mask_token, word_starts
from ckd.stages.teachers.recformer.tokens import PAD, SPECIALS, START, Inputs, Limits, assemble, tokenise
from ckd.stages.teachers.recformer.vocabulary import learn_vocabulary

ITEMS = [
    {"title": "Maple Nut", "brand": "K&M", "category": "Food - Nuts & Seeds"},
    {"title": "Steel nails (200)", "brand": "Acme", "category": "Tools"},
    {"title": "Maple syrup, dark", "brand": "", "category": "Food"},
]
SIZE = 300


@pytest.fixture(scope="module")
def tokenizer():
    return learn_vocabulary(ITEMS * 20, SIZE)


def words_of(starts):
    """Runs of tokens that are one word: the first token is <s>, the second begins a word whatever it is."""
    words = []
    for index in range(1, len(starts)):
        if index == 1 or starts[index]:
            words.append([])
        words[-1].append(index)
    return words


# --- which tokens are chosen


@given(st.lists(st.booleans(), min_size=1, max_size=200), st.integers(0, 2**32))
def test_whole_words_are_chosen_as_many_as_fit_and_never_the_first_token(starts, seed):
    chosen = set(chosen_tokens(np.array(starts), np.random.default_rng(seed)).tolist())
    words = words_of(starts)
    wanted = max(1, round(0.15 * len(starts)))
    assert 0 not in chosen
    assert all(set(word) <= chosen or not set(word) & chosen for word in words)
    assert len(chosen) <= wanted
    left_out = [len(word) for word in words if not set(word) & chosen]
    assert len(chosen) == wanted or all(size > wanted - len(chosen) for size in left_out)


@given(st.integers(2, 5000))
def test_of_single_token_words_exactly_the_share_is_chosen_up_to_the_most(length):
    chosen = chosen_tokens(np.ones(length, bool), np.random.default_rng(length))
    assert len(set(chosen.tolist())) == len(chosen) == min(MOST, max(1, round(0.15 * length)))


def test_every_word_can_be_chosen_equally_often():
    draw, counts = np.random.default_rng(0), np.zeros(21)
    for _ in range(4000):
        counts[chosen_tokens(np.ones(21, bool), draw)] += 1
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:] / 4000, 3 / 20, atol=0.03)


# --- what becomes of them


@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(0, 2**32))
def test_only_chosen_tokens_change_and_the_wanted_ones_are_the_original(lengths, seed):
    draw = np.random.default_rng(seed)
    width = max(lengths)
    real = torch.arange(width) < torch.tensor(lengths)[:, None]
    ids = torch.from_numpy(draw.integers(4, 50, (len(lengths), width)))
    ids[~real], ids[:, 0] = PAD, START
    starts = draw.random(51) < 0.5
    inputs = Inputs(ids, torch.zeros_like(ids), torch.zeros_like(ids), real)
    before = ids.clone()
    changed, wanted = mask(inputs, starts, 50, np.random.default_rng(seed))
    assert torch.equal(inputs.ids, before)
    chosen = wanted != IGNORED
    assert torch.equal(wanted[chosen], before[chosen])
    assert torch.equal(changed.ids[~chosen], before[~chosen])
    assert not chosen[:, 0].any()
    assert not chosen[~real].any()
    assert (changed.ids >= 0).all()
    assert (changed.ids < 51).all()
    for row, length in enumerate(lengths):
        words = words_of(starts[before[row, :length].numpy()])
        assert all(len({bool(chosen[row, index]) for index in word}) == 1 for word in words)


def test_eight_in_ten_become_the_mask_one_another_token_and_one_stays():
    draw = np.random.default_rng(0)
    ids = torch.full((300, 200), 7)
    ids[:, 0] = START
    real = torch.ones_like(ids, dtype=torch.bool)
    changed, wanted = mask(Inputs(ids, ids, ids, real), np.ones(1000, bool), 999, draw)
    found = changed.ids[wanted != IGNORED]
    assert len(found) == 300 * 30
    others = found[(found != 999) & (found != 7)]
    shares = [(found == 999).float().mean(), len(others) / len(found), (found == 7).float().mean()]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.02)
    assert len(others.unique()) > 500
    assert others.max() > 950


# --- words of item texts


def test_a_word_begins_at_a_space_or_at_punctuation(tokenizer):
    starts = word_starts(tokenizer)
    assert starts.shape == (tokenizer.get_vocab_size(),)
    for text, begins in [(" maple", True), ("&", True), ("-", True), ("(", True), ("maple", False), ("9", False)]:
        first = tokenizer.encode(text, add_special_tokens=False).ids[0]
        assert starts[first] == begins, text


def test_an_attributes_name_and_its_values_first_word_belong_to_the_word_before_them(tokenizer):
    """Title "Maple Nut", brand "K&M": `Nut`, `brand` and `K` are one word."""
    tokens = tokenise(ITEMS[:1], tokenizer, Limits(2, 32, 5, 100))
    inputs = assemble(tokens, np.zeros(1, np.int32), np.array([1]), np.array([1]), Limits(2, 32, 5, 100))
    ids = inputs.ids[0].numpy()
    texts = [
        "".join(tokenizer.id_to_token(int(ids[index])) for index in word)
        for word in words_of(word_starts(tokenizer)[ids])
    ]
    assert texts == ["titleMaple", "ĠNutbrandK", "&M"]


# --- the vocabulary


def test_specials_come_first_and_the_mask_last(tokenizer):
    assert [tokenizer.token_to_id(text) for text in SPECIALS] == [0, 1, 2, 3]
    assert mask_token(tokenizer) == tokenizer.get_vocab_size() - 1
    assert 261 < tokenizer.get_vocab_size() <= SIZE
    assert sorted(tokenizer.get_vocab().values()) == list(range(tokenizer.get_vocab_size()))


def test_any_text_has_tokens_and_comes_back_from_them(tokenizer):
    for text in ("Maple", " maple  syrup", "Größe 日本 ☃", "tab\tand\nnewline"):
        encoded = tokenizer.encode(text, add_special_tokens=False)
        assert 3 not in encoded.ids
        assert tokenizer.decode(encoded.ids) == text


def test_special_strings_in_a_text_become_their_ids(tokenizer):
    found = tokenizer.encode("nut <mask><s>x", add_special_tokens=False).ids
    assert found[-3:-1] == [mask_token(tokenizer), START]
    assert "Ġ" not in [tokenizer.id_to_token(number) for number in found]


LEARN = """
import sys
from ckd.stages.teachers.recformer.vocabulary import learn_vocabulary
words = "alpha beta gamma delta epsilon zeta eta theta".split()
items = [{"title": f"{a} {b}", "brand": c} for a in words for b in words for c in words]
sys.stdout.write(learn_vocabulary(items, 400).to_str())
"""


def test_the_same_texts_give_the_same_vocabulary_in_every_process():
    found = {
        subprocess.run(
            [sys.executable, "-c", LEARN], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    assert len(found.pop()) > 1000
