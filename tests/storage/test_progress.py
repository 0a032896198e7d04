"""How far an interrupted training got, told from receipts alone."""

import pytest

from ckd.storage.keys import Address
from ckd.storage.progress import STATE_FORMAT, TRAINING_STATES, forget_training, training_states
from ckd.storage.store import Store

ADDRESS = Address("teachers", {"a": 1})
OLD, NEW = TRAINING_STATES


@pytest.fixture
def draft(tmp_path):
    with Store(tmp_path).draft(ADDRESS) as draft:
        yield draft


def add(draft, name, epoch, **facts):
    draft.add(name, lambda path: path.write_bytes(b"state"), facts={"epoch": epoch, "format": STATE_FORMAT} | facts)


def test_the_latest_epoch_stands_first_whichever_file_holds_it(draft):
    assert training_states(draft) == {}
    add(draft, NEW, 9)
    add(draft, OLD, 10)
    assert list(training_states(draft).items()) == [(10, OLD), (9, NEW)]
    add(draft, NEW, 11)
    assert list(training_states(draft).items()) == [(11, NEW), (10, OLD)]


def test_a_state_of_another_format_is_none(draft):
    add(draft, OLD, 3, format=STATE_FORMAT + 1)
    add(draft, NEW, 2)
    assert training_states(draft) == {2: NEW}


def test_a_state_without_a_receipt_or_of_another_size_is_none(draft):
    add(draft, OLD, 3)
    (draft.partial / OLD).write_bytes(b"stat")
    (draft.partial / NEW).write_bytes(b"state")
    assert training_states(draft) == {}


def test_a_forgotten_state_is_in_no_artifact(draft):
    add(draft, OLD, 3)
    add(draft, NEW, 4)
    draft.add("weights", lambda path: path.write_bytes(b"weights"))
    forget_training(draft)
    assert training_states(draft) == {}
    assert list(draft.commit().files) == ["weights"]
