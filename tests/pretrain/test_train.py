"""What a training makes of the state that an interrupted one left: damaged, torn, of another version, or none."""

import hashlib
import json

import pyarrow.parquet as pq
import pytest
import torch

from ckd.stages.pretrain.train import pretrain_teacher
from ckd.stages.teachers.unisrec import NetworkSettings, PretrainSettings, training
from ckd.storage.keys import Address, canonical_json
from ckd.storage.progress import STATE_FORMAT, TRAINING_STATES
from ckd.storage.store import Store

ADDRESS = Address("teachers", {"a": 1})
NETWORK = NetworkSettings(hidden=8, experts=2, layers=1, inner=8, max_length=6)
SETTINGS = PretrainSettings(network=NETWORK, epochs=5, batch_size=16, held_out=4, item_drop_coefficient=1)
STOPPED = 3
NEWEST, OLDER = TRAINING_STATES[STOPPED % 2], TRAINING_STATES[(STOPPED - 1) % 2]


class Stop(Exception):
    """Stands for whatever ends a process between two epochs."""


@pytest.fixture
def pretrain(circle, tmp_path):
    """A function that pre-trains in a store; returns the artifact, the epochs it took now, and what it had to say."""

    def run(store=tmp_path / "store", stop=None):
        epochs, notes = [], []

        def on_epoch(row):
            epochs.append(row["epoch"])
            if row["epoch"] == stop:
                raise Stop

        cpu = torch.device("cpu")
        made = pretrain_teacher(Store(store), ADDRESS, training, SETTINGS, [circle], cpu, on_epoch, notes.append)
        return made, epochs, notes

    return run


@pytest.fixture
def left(pretrain, tmp_path):
    """The partial folder of a pre-training that ended after epoch 3."""
    with pytest.raises(Stop):
        pretrain(stop=STOPPED)
    (folder,) = tmp_path.glob("store/teachers/.*.partial")
    return folder


def rewrite(folder, name, change):
    """Let ``change`` change what the receipt of a file says, which then is as whole as before."""
    path = folder / ".receipts" / f"{name}.json"
    receipt = json.loads(path.read_text())["receipt"]
    change(receipt)
    digest = hashlib.sha256(canonical_json(receipt).encode()).hexdigest()
    path.write_text(json.dumps({"receipt": receipt, "digest": digest}))


def test_a_state_of_another_machine_is_not_gone_on_with(pretrain, left):
    """On a GPU, or with other processes, it would not end with the same numbers."""
    for name in TRAINING_STATES:
        rewrite(left, name, lambda receipt: receipt["facts"]["made_on"].update(processes=4))
    _, epochs, (note,) = pretrain()
    assert epochs == [1, 2, 3, 4, 5]
    assert note.startswith(
        "starts anew: the interrupted run was on 4 processes of cpu, this one is on 1 processes of cpu"
    )


def flip(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)


def tear(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])


def age(folder, name):
    rewrite(folder, name, lambda receipt: receipt["facts"].update(format=STATE_FORMAT + 1))


def forget(folder, name):
    (folder / ".receipts" / f"{name}.json").unlink()


def contents(artifact):
    digests = {name: receipt.sha256 for name, receipt in artifact.files.items() if name != "curve.parquet"}
    return digests, pq.read_table(artifact.path / "curve.parquet").drop_columns("seconds"), artifact.facts


def test_it_goes_on_after_the_last_whole_epoch_and_says_so(pretrain, left, tmp_path):
    whole, epochs, notes = pretrain(tmp_path / "other store")
    assert (epochs, notes) == ([1, 2, 3, 4, 5], [])
    made, epochs, notes = pretrain()
    assert (epochs, notes) == ([4, 5], ["goes on after epoch 3 of an interrupted run"])
    assert contents(made) == contents(whole)


@pytest.mark.parametrize("harm", [flip, tear, age, forget])
def test_of_a_state_that_is_not_whole_and_the_one_before_the_latter_counts(pretrain, left, tmp_path, harm):
    harm(left, NEWEST)
    made, epochs, notes = pretrain()
    assert (epochs, notes) == ([3, 4, 5], ["goes on after epoch 2 of an interrupted run"])
    assert contents(made) == contents(pretrain(tmp_path / "other store")[0])


@pytest.mark.parametrize("harm", [flip, tear, age, forget])
def test_without_a_whole_state_it_starts_anew_and_says_so(pretrain, left, tmp_path, harm):
    harm(left, NEWEST)
    harm(left, OLDER)
    made, epochs, notes = pretrain()
    assert (epochs, notes) == ([1, 2, 3, 4, 5], ["starts anew: an interrupted run left no whole state"])
    assert contents(made) == contents(pretrain(tmp_path / "other store")[0])


def test_the_state_and_whatever_else_was_left_are_in_no_artifact(pretrain, left):
    (left / "stray.bin").write_bytes(b"stray")
    (left / ".receipts" / "stray.bin.json").write_text(json.dumps({"bytes": 5, "sha256": "0" * 64}))
    made, *_ = pretrain()
    assert made.files.keys() == {"config.json", "curve.parquet", "model.safetensors"}
    assert {path.name for path in made.path.iterdir()} == {*made.files, "manifest.json", "manifest.spare.json"}
    assert not left.exists()


def test_the_time_of_the_epochs_before_the_interruption_is_counted(pretrain, left):
    rewrite(left, NEWEST, lambda receipt: receipt["facts"].update(seconds=5_000.0))
    made, *_ = pretrain()
    assert 5_000 < made.manifest["wall_seconds"] < 10_000


def test_what_is_there_is_not_trained_again(pretrain):
    made, *_ = pretrain()
    again, epochs, notes = pretrain()
    assert (again, epochs, notes) == (made, [], [])
