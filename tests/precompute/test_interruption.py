"""`ckd precompute` killed, interrupted, started twice: real processes over real files."""

import json
import os
import shutil
import signal
import time

import pyarrow.parquet as pq
import pytest

from ckd.storage.files import sha256_file
from ckd.storage.manifest import MANIFEST

SMALL = ("--set", "labels.shard_rows=8")
HINT = "interrupted; run the same command again to go on"


def wait_for_a_part(place, process):
    """Return as soon as a shard has its receipt."""
    for _ in range(60_000):
        if any(place.store.glob("labels/*/*/.key=*.partial/.receipts/part-*.json")):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    pytest.fail("no shard appeared")


def parts(folder):
    return {path.name: path for path in sorted(folder.glob("*.parquet"))}


def digests(folder):
    return {name: sha256_file(path) for name, path in parts(folder).items()}


def identities(folder):
    return {name: (path.stat().st_ino, path.stat().st_mtime_ns) for name, path in parts(folder).items()}


def rows_of(folder):
    return [
        row
        for name, path in parts(folder).items()
        if name.startswith("part-")
        for row in pq.read_table(path).to_pylist()
    ]


def receipted(partial):
    return {path.stem for path in (partial / ".receipts").glob("part-*.json")}


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory, make_workplace):
    """A workplace whose precompute was killed with SIGKILL in the middle; nobody writes into it."""
    place = make_workplace(tmp_path_factory.mktemp("killed") / "workplace")
    process = place.start("precompute", *SMALL)
    wait_for_a_part(place, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return place


@pytest.fixture
def killed(killed_once, tmp_path, make_workplace):
    """A copy of it."""
    place = make_workplace(tmp_path / "workplace")
    shutil.rmtree(place.store)
    shutil.copytree(killed_once.store, place.store, copy_function=shutil.copy2)
    return place


def status_of_labels(place, *arguments):
    done = place.ckd("status", *arguments)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if " labels " in line]
    return line


def test_a_killed_precompute_leaves_finished_shards_and_nothing_for_readers(killed, labelled):
    done = receipted(killed.partial)
    assert 0 < len(done) < len(parts(labelled.labels)) - 1
    assert not list(killed.store.glob("labels/*/*/key=*"))
    for name in done:
        assert sha256_file(killed.partial / name) == digests(labelled.labels)[name]


def test_status_says_how_far_it_got(killed, labelled):
    done, total = len(receipted(killed.partial)), len(parts(labelled.labels)) - 1
    assert f"resume ({done} of {total} shards)" in status_of_labels(killed, *SMALL)


def test_started_again_it_keeps_the_finished_shards_and_ends_with_the_same_bytes(killed, labelled):
    done = receipted(killed.partial)
    before = identities(killed.partial)
    again = killed.ckd("precompute", *SMALL)
    assert again.returncode == 0, again.stderr
    assert digests(killed.labels) == digests(labelled.labels)
    after = identities(killed.labels)
    assert {name: after[name] for name in done} == {name: before[name] for name in done}
    assert not list(killed.store.glob("labels/*/*/.key=*"))


def test_a_shard_that_was_damaged_in_between_is_computed_again(killed, labelled):
    damaged, *_ = sorted(receipted(killed.partial))
    path = killed.partial / damaged
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    again = killed.ckd("precompute", *SMALL)
    assert again.returncode == 0, again.stderr
    assert digests(killed.labels) == digests(labelled.labels)


def test_another_cut_into_shards_after_the_kill_ends_with_the_same_rows(killed, labelled):
    again = killed.ckd("precompute", "--set", "labels.shard_rows=100")
    assert again.returncode == 0, again.stderr
    names = list(parts(killed.labels))
    assert names == [*(f"part-{number:05d}.parquet" for number in range(len(names) - 1)), "vectors.parquet"]
    assert len(names) < len(parts(labelled.labels)) // 2
    assert rows_of(killed.labels) == rows_of(labelled.labels)
    manifest = json.loads((killed.labels / MANIFEST).read_text())
    assert sorted(manifest["files"]) == names


def test_an_interrupt_is_answered_with_one_line_and_the_shards_are_kept(workplace, labelled):
    process = workplace.start("precompute", *SMALL)
    wait_for_a_part(workplace, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == HINT
    done = receipted(workplace.partial)
    assert 0 < len(done) < len(parts(labelled.labels)) - 1
    assert workplace.ckd("precompute", *SMALL).returncode == 0
    assert digests(workplace.labels) == digests(labelled.labels)


def test_of_two_at_once_one_works_and_the_other_is_told_who_does(workplace, labelled):
    first = workplace.start("precompute", *SMALL)
    wait_for_a_part(workplace, first)
    first.send_signal(signal.SIGSTOP)
    try:
        second = workplace.ckd("precompute", *SMALL)
    finally:
        first.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    (line,) = second.stderr.splitlines()
    key = workplace.partial.name.removeprefix(".key=").removesuffix(".partial")
    host = os.uname().nodename
    assert line == (
        f"error: labels artifact {key} is being written by process {first.pid} on {host}; wait for it to end or stop it"
    )
    _, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    assert digests(workplace.labels) == digests(labelled.labels)
