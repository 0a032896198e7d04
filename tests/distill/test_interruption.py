"""`ckd distill` interrupted, started twice, and over damaged labels: real processes over real files."""

import json
import os
import signal
import time
from contextlib import contextmanager

import pytest

from ckd.storage.files import sha256_file

SHORT = ("--set", "distill.epochs=3")
TIMELESS = ("model.safetensors", "ranks.parquet", "metrics.parquet")
"""Files of a run that do not tell when it was trained."""


def students(place):
    found = {
        path.relative_to(place.store): sha256_file(path)
        for name in TIMELESS
        for path in place.store.glob(f"runs/*/{name}")
    }
    assert len(found) == 6
    return found


@contextmanager
def held_in_training(place):
    """`ckd distill` that cannot get beyond its first epoch, for nobody reads what it prints; yields also the reader."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, b"\n" * 512)
    os.set_blocking(writer, True)
    process = place.start("distill", *SHORT, stdout=writer)
    os.close(writer)
    for _ in range(60_000):
        if any(place.store.glob("runs/.*.partial")):
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    with os.fdopen(reader) as stream:
        yield process, stream
    process.communicate(timeout=60)


@pytest.fixture(scope="module")
def refused(labelled, tmp_path_factory, make_workplace):
    """A workplace with one flipped byte in a label shard, the shard, and what `ckd distill` said."""
    place = make_workplace(tmp_path_factory.mktemp("damaged") / "workplace", labelled.store)
    shard = place.labels / "part-00003.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    return place, shard, place.ckd("distill", *SHORT)


def test_a_damaged_shard_is_refused_by_name_and_nobody_learns_from_it(refused):
    place, shard, done = refused
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {shard} is damaged: ")
    kept = [json.loads(path.read_text())["inputs"]["distilled"] for path in place.store.glob("runs/*/manifest.json")]
    assert True not in kept


def test_a_damaged_shard_is_refused_before_anything_is_trained(refused):
    place, _, done = refused
    assert done.stdout == ""
    assert not list(place.store.glob("runs/*"))


def test_an_interrupt_leaves_no_run_and_the_same_command_finishes(labelled, distilled, tmp_path, make_workplace):
    place = make_workplace(tmp_path / "interrupted", labelled.store)
    with held_in_training(place) as (process, stream):
        process.send_signal(signal.SIGINT)
        stream.read()
        assert process.stderr.read().strip() == "interrupted; run the same command again to go on"
    assert process.returncode == 130
    assert not list(place.store.glob("runs/*"))
    done = place.ckd("distill", *SHORT)
    assert done.returncode == 0, done.stderr
    assert students(place) == students(distilled)


def test_of_two_at_once_one_trains_and_the_other_is_told_who_does(labelled, distilled, tmp_path, make_workplace):
    place = make_workplace(tmp_path / "twice", labelled.store)
    with held_in_training(place) as (process, stream):
        held = list(place.store.glob("runs/.*.partial"))
        second = place.ckd("distill", *SHORT)
        stream.read()
    assert second.returncode == 2
    (partial,), host = held, os.uname().nodename
    key = partial.name.removeprefix(".").removesuffix(".partial")
    assert second.stderr == (
        f"error: runs artifact {key} is being written by process {process.pid} on {host}; "
        "wait for it to end or stop it\n"
    )
    assert process.returncode == 0
    assert students(place) == students(distilled)
