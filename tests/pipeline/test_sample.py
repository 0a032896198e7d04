"""Samples of users: what is asked for, and that the same users are taken whatever their order."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckd.pipeline.sample import Sample, SampleParameter, sampled


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5%", Sample(share=0.005)),
        ("100%", Sample(share=1.0)),
        ("0.005", Sample(share=0.005)),
        (".5", Sample(share=0.5)),
        ("1.0", Sample(share=1.0)),
        ("1", Sample(count=1)),
        ("20", Sample(count=20)),
    ],
)
def test_a_percentage_a_share_and_a_number_are_told_apart(text, expected):
    assert SampleParameter().convert(text, None, None) == expected


@given(st.text(alphabet="0123456789.%-+e ", max_size=6))
def test_a_text_is_a_sample_above_nothing_and_at_most_everybody_or_it_is_refused(text):
    try:
        found = SampleParameter().convert(text, None, None)
    except click.BadParameter:
        return
    assert 1 <= found.of(1000) <= 1000


@pytest.mark.parametrize(
    ("sample", "users", "expected"),
    [
        (Sample(share=0.005), 1000, 5),
        (Sample(share=0.005), 10, 1),
        (Sample(count=20), 1000, 20),
        (Sample(count=20), 3, 3),
        (Sample(share=1.0), 7, 7),
    ],
)
def test_there_is_at_least_one_user_and_no_more_than_there_are(sample, users, expected):
    assert sample.of(users) == expected


def test_the_same_users_are_taken_in_any_order_and_a_larger_sample_holds_the_smaller():
    users = [f"user-{number}" for number in range(200)]
    names = [{users[n] for n in sampled(users, Sample(count=count), 0)} for count in (5, 20)]
    assert names[0] < names[1]
    backwards = users[::-1]
    assert {backwards[n] for n in sampled(backwards, Sample(count=20), 0)} == names[1]
    assert {users[n] for n in sampled(users, Sample(count=20), 1)} != names[1]


def test_whole_numbers_are_users_too():
    assert sampled([30, 10, 20], Sample(count=3), 0) == [0, 1, 2]
