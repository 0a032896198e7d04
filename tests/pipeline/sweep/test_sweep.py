"""`ckd distill` as a sweep: real processes over a real store."""

import json
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from ckd.storage.files import sha256_file

GRID = ("--grid", "distill.alpha=0.2,0.8", "--seeds", "2", "--set", "distill.epochs=3")
ENDLESS = ("--seeds", "3", "--set", "distill.epochs=5000", "--set", "distill.patience=5000")


def runs(place):
    """``{key: inputs}`` of the runs in the store."""
    manifests = place.store.glob("runs/[!.]*/manifest.json")
    return {path.parent.name: json.loads(path.read_text())["inputs"] for path in manifests}


def results(place, key):
    folder = place.store / "runs" / key
    return {name: sha256_file(folder / name) for name in ("model.safetensors", "ranks.parquet", "metrics.parquet")}


def finished(printed):
    """The names of the runs that were said to be done."""
    return [line.partition(": valid")[0] for line in printed.splitlines() if re.search(r": valid .*\[\d+ of", line)]


@pytest.fixture(scope="module")
def guarded(guard, tmp_path_factory):
    """A PYTHONPATH under which no process can open a teacher."""
    folder = tmp_path_factory.mktemp("guard")
    (folder / "sitecustomize.py").write_text(guard)
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture(scope="module")
def swept(labelled, make_workplace, guarded, tmp_path_factory):
    """A workplace after a sweep that could open no teacher, and what it printed."""
    place = make_workplace(tmp_path_factory.mktemp("swept") / "workplace", labelled.store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", guarded)
        done = place.ckd("distill", *GRID)
    assert done.returncode == 0, done.stderr
    return place, done


def start(place, *arguments, **options):
    return place.start("distill", *arguments, start_new_session=True, **options)


def wait_for_training(place, process):
    while not list(place.store.glob("runs/.*.partial")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)


def test_a_sweep_trains_every_run_once_and_no_process_of_it_opens_a_teacher(swept):
    place, done = swept
    assert done.stderr == ""
    found = sorted(
        (run["distilled"], (run["teaching"] or {}).get("alpha"), run["seed"]) for run in runs(place).values()
    )
    assert found == [(False, None, 0), (False, None, 1), *((True, a, seed) for a in (0.2, 0.8) for seed in (0, 1))]


@pytest.mark.parametrize("name", ["transformers", "ckd.stages.precompute.label"])
def test_the_guard_of_that_test_works(labelled, guarded, monkeypatch, name):
    monkeypatch.setenv("PYTHONPATH", guarded)
    done = labelled.ckd(code=f"import {name}")
    assert done.stderr.splitlines()[-1] == f"AssertionError: {name} is imported"


def test_it_prints_a_line_per_run_and_none_per_epoch(swept):
    _, done = swept
    assert sorted(finished(done.stdout)) == sorted(
        [f"small, tiny, plain, seed {seed}" for seed in (0, 1)]
        + [f"small, tiny, distilled, alpha {alpha}, seed {seed}" for alpha in (0.2, 0.8) for seed in (0, 1)]
    )
    assert "epoch 1  " not in done.stdout
    assert re.findall(r"\[(\d) of 6", done.stdout) == list("123456")


def test_its_runs_are_those_that_distill_alone_would_train(swept, distilled):
    place, _ = swept
    assert runs(distilled).keys() < runs(place).keys()
    for key in runs(distilled):
        assert results(place, key) == results(distilled, key)


def test_started_again_it_trains_nothing_and_lists_the_same(swept):
    place, done = swept
    again = place.ckd("distill", *GRID)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[0] == "all 6 runs are in the store"
    assert again.stdout.splitlines()[1:] == done.stdout.splitlines()[7:]


def test_a_run_that_fails_stops_no_other_and_is_named_at_the_end(swept, tmp_path, make_workplace):
    place = make_workplace(tmp_path / "failing", swept[0].store)
    more = ("--set", "distill.baseline=false", "--grid", "students.small.learning_rate=1e30,0.002")
    done = place.ckd("distill", *GRID[:2], "--set", "distill.epochs=3", *more, "--jobs", "1")
    assert done.returncode == 2
    assert [line.partition(": the training diverged: ")[0] for line in done.stderr.splitlines()] == [
        "error: small, tiny, distilled, learning_rate 1e+30, alpha 0.2, seed 0",
        "small, tiny, distilled, learning_rate 1e+30, alpha 0.8, seed 0",
    ]
    assert len(runs(place)) == 8
    assert not list(place.store.glob("runs/.*"))


CLUMSY = """
from typing import Literal

from ckd.stages.students import sasrec

class Settings(sasrec.Settings):
    kind: Literal["clumsy"] = "clumsy"

def build(settings, domains):
    if settings.hidden == 6:
        raise AttributeError("no such layer\\nin any of its modules")
    return sasrec.build(settings, domains)
"""


def test_a_run_that_ends_by_an_error_of_its_network_stops_no_other(labelled, tmp_path, make_workplace, monkeypatch):
    site, info = tmp_path / "site", tmp_path / "site" / "clumsy-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "clumsy.py").write_text(CLUMSY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clumsy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ckd.students]\nclumsy = clumsy\n")
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    place = make_workplace(tmp_path / "clumsy", labelled.store)
    more = ("--set", "distill.baseline=false", "--set", "distill.epochs=3", "--set", "students.small.kind=clumsy")
    done = place.ckd("distill", *more, "--grid", "students.small.hidden=6,8", "--jobs", "1")
    assert done.returncode == 2
    assert done.stderr == "error: small, tiny, distilled, hidden 6, seed 0: AttributeError: no such layer\n"
    assert [run["settings"]["hidden"] for run in runs(place).values()] == [8]
    assert not list(place.store.glob("runs/.*"))


def test_damaged_labels_are_refused_before_anything_is_trained(labelled, tmp_path, make_workplace):
    place = make_workplace(tmp_path / "damaged", labelled.store)
    shard = place.labels / "part-00003.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    done = place.ckd("distill", *GRID)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {shard} is damaged: ")
    assert not list(place.store.glob("runs/*"))


def test_ctrl_c_ends_all_processes_leaves_nothing_half_and_says_how_to_go_on(labelled, tmp_path, make_workplace):
    place = make_workplace(tmp_path / "interrupted", labelled.store)
    process = start(place, *ENDLESS)
    wait_for_training(place, process)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "interrupted; run the same command again to go on\n")
    gone, alive = psutil.wait_procs(children, timeout=60)
    assert (len(gone) >= 2, alive) == (True, [])
    assert not list(place.store.glob("runs/*"))


SLOW_TO_LEAVE = """
import sys
import time

from ckd.pipeline import cluster
from ckd.pipeline.cli import main

def kill_and_wait(kill=cluster._kill_children):
    kill()
    time.sleep(1)

cluster._kill_children = kill_and_wait
sys.exit(main())
"""


def test_a_process_started_after_ctrl_c_is_heard_by_nobody_and_does_not_stay(labelled, tmp_path, make_workplace):
    place = make_workplace(tmp_path / "late", labelled.store)
    process = start(place, *ENDLESS, "--jobs", "1", code=SLOW_TO_LEAVE)
    wait_for_training(place, process)
    before = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    heard: dict[psutil.Process, str] = {}
    while process.poll() is None:
        with suppress(psutil.Error):
            for child in set(psutil.Process(process.pid).children(recursive=True)) - set(before):
                with suppress(OSError):
                    heard[child] = str(Path(f"/proc/{child.pid}/fd/2").readlink())
        time.sleep(0.01)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "interrupted; run the same command again to go on\n")
    assert set(heard.values()) == {os.devnull}
    assert psutil.wait_procs(heard, timeout=60)[1] == []


def test_its_processes_die_with_it_even_if_it_is_killed(labelled, tmp_path, make_workplace):
    place = make_workplace(tmp_path / "killed", labelled.store)
    process = start(place, *ENDLESS)
    wait_for_training(place, process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=60)
    gone, alive = psutil.wait_procs(children, timeout=60)
    assert (len(gone) >= 2, alive) == (True, [])


def trainer(process):
    """The process that holds the lock of a run, once there is one."""
    while process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if any("/locks/runs-" in file.path for file in child.open_files()):
                    return child
        time.sleep(0.01)
    raise AssertionError(process.communicate())


def test_a_run_whose_process_is_killed_is_tried_once_more_and_stops_no_other(labelled, tmp_path, make_workplace):
    place = make_workplace(tmp_path / "unlucky", labelled.store)
    more = ("--set", "distill.baseline=false", "--set", "distill.patience=100", "--set", "distill.epochs=100")
    process = start(place, *more, "--seeds", "2", "--jobs", "1")
    for _ in range(2):
        found = trainer(process)
        found.kill()
        psutil.wait_procs([found])
    _, said = process.communicate(timeout=600)
    assert process.returncode == 2
    assert said.startswith("error: small, tiny, distilled, seed 0: its process was killed, twice ")
    assert [run["seed"] for run in runs(place).values()] == [1]
    assert not list(place.store.glob("runs/.*"))


def test_of_two_at_once_neither_fails_and_each_run_is_trained_by_one(swept, labelled, tmp_path, make_workplace):
    place = make_workplace(tmp_path / "twice", labelled.store)
    both = [start(place, *GRID, "--jobs", "1") for _ in range(2)]
    said = [process.communicate(timeout=600) for process in both]
    assert [(process.returncode, err) for process, (_, err) in zip(both, said, strict=True)] == [(0, ""), (0, "")]
    assert runs(place) == runs(swept[0])
    for key in runs(place):
        assert results(place, key) == results(swept[0], key)
    tables = [out.partition("domain  ")[2] for out, _ in said]
    assert tables[0] == tables[1] != ""
