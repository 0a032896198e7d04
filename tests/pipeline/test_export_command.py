"""`ckd export` as a process: how a run is named, where it goes, and that only the store is needed."""

import json
import resource
import shutil
import signal
import time

import pytest

from ckd.pipeline.cli import main
from ckd.stages.export.weights import load_export


def runs(place):
    """``{distilled: key}``."""
    found = {}
    for path in sorted(place.store.glob("runs/*/manifest.json")):
        manifest = json.loads(path.read_text())
        found[manifest["inputs"]["distilled"]] = manifest["key"]
    return found


@pytest.fixture(scope="module")
def place(distilled, tmp_path_factory, make_workplace):
    """A workplace with a run of each variant, to write into."""
    return make_workplace(tmp_path_factory.mktemp("exporting") / "workplace", distilled.store)


@pytest.fixture
def bare(place, tmp_path):
    """A folder with nothing but a copy of the store, less all that needs no copy."""
    shutil.copytree(place.store, tmp_path / "kept", ignore=shutil.ignore_patterns("labels", "teachers", "text"))
    return type(place)(tmp_path)


def runs_of(bare):
    """``{distilled: short key}`` of the copied store."""
    found = {}
    for path in (bare.folder / "kept" / "runs").glob("*/manifest.json"):
        found[json.loads(path.read_text())["inputs"]["distilled"]] = path.parent.name
    return found


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_student_is_named_by_student_and_domain(place):
    keys = runs(place)
    for name, key in (("small/tiny", keys[True]), ("small/tiny/plain", keys[False])):
        done = place.ckd("--set", "distill.epochs=3", "export", name, "--format", "safetensors")
        assert (done.returncode, done.stderr) == (0, "")
        folder = place.folder / "exports" / f"small-tiny-{key[:16]}" / "safetensors"
        assert done.stdout == f"{folder.relative_to(place.folder)}: weights, settings and items\n"
        assert config_of(folder)["run"] == key
        assert load_export(folder)[1].num_rows == 40


def test_without_raw_files_and_configuration_a_key_will_do(bare):
    for short in runs_of(bare).values():
        done = bare.ckd("export", short[:5], "--store", "kept", "--format", "faiss", "--index", "HNSW8", "--out", short)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{short}: recall@20 ")
        assert done.stdout.endswith(" of the exact lists of 60 users\n")
        assert config_of(bare.folder / short)["run"].startswith(short)
    done = bare.ckd("export", "small/tiny/plain", "--store", "kept", "--format", "safetensors")
    assert done.returncode == 0, done.stderr


def test_where_raw_files_are_gone_the_only_run_of_a_name_is_taken_and_said_so(place):
    done = place.ckd(
        "export", "small/tiny", "--format", "safetensors", "--out", "moved", "--set", "domains.tiny.path=nowhere"
    )
    assert done.returncode == 0
    assert done.stderr.startswith(f"took {runs(place)[True][:16]} (small, tiny, distilled), the only run of that name")
    assert str(place.folder / "nowhere") in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_onnx_says_how_close_onnxruntime_comes(place):
    done = place.ckd("export", runs(place)[True], "--format", "onnx", "--top-k", "3", "--out", "model")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("model: onnxruntime gives the student's scores, largest difference ")
    assert {path.name for path in (place.folder / "model").iterdir()} == {
        "model.onnx",
        "items.parquet",
        "config.json",
        "README.md",
    }
    assert config_of(place.folder / "model")["outputs"]["best_items"] == ["int64", "batch", 3]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nope", "--format", "onnx"), "the store {store} has no run 'nope'; it has {all}"),
        (("small/tine", "--format", "onnx"), "small/tine: no domain is named 'tine'; did you mean tiny?"),
        (("big/tiny", "--format", "onnx"), "big/tiny: no student is named 'big'; known: small"),
        (("small/", "--format", "onnx"), "'small/' names no run; write STUDENT/DOMAIN, STUDENT/DOMAIN/plain, or the "),
        (("small/tiny/raw", "--format", "onnx"), "'small/tiny/raw' names no run; write STUDENT/DOMAIN,"),
        (
            ("small/tiny", "--format", "onnx", "--set", "seed=5"),
            "small/tiny: the store has no run of this configuration; run `ckd distill`; the store has others of that "
            "name: {distilled}",
        ),
        (
            ("small/tiny", "--format", "onnx", "--set", "distill.alpha=0"),
            "small/tiny: by the configuration this student is trained without distillation only: write small/tiny/p",
        ),
        (("small/tiny", "--format", "onnx", "--index", "Flat"), "--index goes with --format faiss only; leave it out"),
        (("small/tiny", "--format", "safetensors", "--top-k", "3"), "--top-k goes with --format onnx or faiss; leave"),
        (("small/tiny", "--format", "faiss", "--domain", "b"), "run {distilled} has no domain 'b'; it has tiny"),
        (("ab", "--format", "faiss", "--store", "none"), "--store none: there is no such folder; name the store that"),
        (("ab", "--format", "faiss", "--store", ".", "--set", "seed=1"), "--store reads no configuration, so --set"),
        (("ab", "--format", "faiss", "--store", ".", "-c", "p.yaml"), "--store reads no configuration, so -c p.yaml "),
        (("", "--format", "faiss"), "'' may be any of {all}; write more of the key"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(place, monkeypatch, capsys, arguments, said):
    before = sorted(place.folder.rglob("*"))
    called = {
        kind: f"{key[:16]} (small, tiny, {'distilled' if kind else 'plain'})" for kind, key in runs(place).items()
    }
    everything = ", ".join(called[kind] for kind in sorted(called, key=lambda kind: runs(place)[kind]))
    monkeypatch.chdir(place.folder)
    configured = () if "--store" in arguments else ("--set", "distill.epochs=3")
    code = main([*configured, "export", *arguments])
    out, err = capsys.readouterr()
    assert err.startswith(f"error: {said.format(store=place.store, all=everything, distilled=called[True])}")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert sorted(place.folder.rglob("*")) == before


def test_a_run_whose_corpus_is_not_in_the_store_is_one_line(bare):
    (corpus,) = (bare.folder / "kept" / "corpus").iterdir()
    shutil.rmtree(corpus)
    done = bare.ckd("export", "small/tiny", "--store", "kept", "--format", "safetensors")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: kept lacks the corpus {corpus.name} of domain tiny that run ")
    assert done.stderr.endswith("copy it into the store, or run `ckd prepare` on the same raw files\n")


def test_damaged_weights_are_refused_by_name(bare):
    (weights,) = (bare.folder / "kept" / "runs").glob(f"{runs_of(bare)[True]}/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = bare.ckd("export", "small/tiny", "--store", "kept", "--format", "safetensors")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {weights.relative_to(bare.folder)} is damaged: ")
    assert not (bare.folder / "exports").exists() or not any((bare.folder / "exports").rglob("*.safetensors"))


def test_an_export_that_is_there_is_replaced_only_by_force(place):
    arguments = ("export", runs(place)[True][:8], "--format", "safetensors", "--out", "twice")
    assert place.ckd(*arguments).returncode == 0
    inode = (place.folder / "twice").stat().st_ino
    done = place.ckd(*arguments)
    assert done.returncode == 2
    assert done.stderr == "error: twice is there already; name another folder with --out, or replace it with --force\n"
    assert (place.folder / "twice").stat().st_ino == inode
    assert place.ckd(*arguments, "--force").returncode == 0
    assert (place.folder / "twice").stat().st_ino != inode


@pytest.mark.parametrize("form", ["safetensors", "faiss", "onnx"])
def test_a_full_disk_leaves_nothing_half(place, form):
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))}
    done = place.ckd("export", runs(place)[True], "--format", form, "--out", f"full/{form}", **limit)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: file too large for this file system or the limit of the shell")
    assert not any((place.folder / "full").iterdir())


def test_an_interrupt_leaves_nothing_half(place):
    process = place.start("export", runs(place)[True], "--format", "onnx", "--out", "broken/model")
    for _ in range(60_000):
        if any((place.folder / "broken").glob(".model.*.writing")):
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err.strip()) == (130, "interrupted; run the same command again to go on")
    assert not any((place.folder / "broken").iterdir())
