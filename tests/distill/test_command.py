"""`ckd distill` as a process: its table, what it keeps, what it trains again, and that no teacher is loaded."""

import json
import math
import re

import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from ckd.pipeline.config.load import load_configuration
from ckd.storage.files import sha256_file

MAIN = "from ckd.pipeline.cli import main; sys.exit(main())"
SHORT = ("--set", "distill.epochs=3")
FILES = {
    *("model.safetensors", "config.json", "metrics.parquet", "ranks.parquet", "curve.parquet"),
    *("manifest.json", "manifest.spare.json"),
}
METRICS = {
    "recall@10": lambda rank: rank <= 10,
    "recall@50": lambda rank: rank <= 50,
    "ndcg@10": lambda rank: (rank <= 10) / math.log2(1 + rank),
    "ndcg@50": lambda rank: (rank <= 50) / math.log2(1 + rank),
    "mrr": lambda rank: 1 / rank,
}
"""In the order of the table."""


def runs(place):
    """``{distilled: folder}`` of the seed and temperature that are the default."""
    found = {}
    for path in sorted(place.store.glob("runs/*/manifest.json")):
        inputs = json.loads(path.read_text())["inputs"]
        if inputs["seed"] == 0 and (inputs["teaching"] or {}).get("temperature", 1) == 1:
            found[inputs["distilled"]] = path.parent
    return found


def distils(folder):
    return json.loads((folder / "manifest.json").read_text())["inputs"]["distilled"]


def names(place):
    return {path.name for path in place.store.glob("runs/*")}


def identities(place):
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in place.store.glob("runs/*/*")}


def results(folder):
    """What must not depend on when and where a student was trained."""
    return {name: sha256_file(folder / name) for name in ("model.safetensors", "ranks.parquet", "metrics.parquet")}


def contents(folder):
    return {path: path.is_dir() or sha256_file(path) for path in folder.rglob("*")}


def lines_of_training(out):
    return [line for line in out.splitlines() if " epoch " in line]


def table(out):
    """The header and the rows of the table, as lists of cells; cells of the keys may be empty."""
    lines = out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("domain  model"))
    header, body = lines[at], lines[at + 2 : lines.index(next(line for line in lines if line.startswith("Test")))]
    model, distilled = header.index("model"), header.index("distilled")
    numbers = distilled + len("difference")
    rows = [
        [row[:model].strip(), row[model:distilled].strip(), row[distilled:numbers].strip(), *cells(row[numbers:])]
        for row in body
    ]
    return header.split(), rows


def cells(text):
    return re.split(r" {2,}", text.strip())


def mean_metrics(ranks):
    return {name: sum(map(metric, ranks)) / len(ranks) for name, metric in METRICS.items()}


def ranks_of(folder, split):
    return [row["rank"] for row in pq.read_table(folder / "ranks.parquet").to_pylist() if row["split"] == split]


def facts_of(folder):
    return json.loads((folder / "manifest.json").read_text())["facts"]


def costs(folder):
    size = sum(tensor.size for tensor in load_file(folder / "model.safetensors").values())
    return [f"{size:,}", f"{facts_of(folder)['ms_per_1000_users']['tiny']:.1f}"]


def four_digits(values):
    return [f"{value:.4f}" for value in values.values()]


# --- the table and the folder


def test_the_table_has_the_teacher_both_students_and_their_difference(distilled):
    header, rows = table(distilled.printed)
    assert " ".join(header) == "domain model distilled R@10 R@50 N@10 N@50 MRR parameters ms/1k users"
    assert [row[:3] for row in rows] == [
        ["tiny", "uni (teacher)", ""],
        ["tiny", "small", "no"],
        ["tiny", "small", "yes"],
        ["tiny", "small", "difference"],
        ["", "", "95 %"],
    ]


def test_the_printed_numbers_are_those_of_the_stored_ranks_and_networks(distilled):
    _, (teacher, plain, taught, difference, interval) = table(distilled.printed)
    parts = [pq.read_table(path) for path in sorted(distilled.labels.glob("part-*.parquet"))]
    labels = [row for part in parts for row in part.select(["split", "target_rank"]).to_pylist()]
    assert teacher[3:8] == four_digits(mean_metrics([row["target_rank"] for row in labels if row["split"] == "test"]))
    folders = runs(distilled)
    without, with_ = (mean_metrics(ranks_of(folders[variant], "test")) for variant in (False, True))
    assert plain[3:8] == four_digits(without)
    assert taught[3:8] == four_digits(with_)
    assert [plain[8:], taught[8:]] == [costs(folders[False]), costs(folders[True])]
    gains = [100 * (with_[name] / without[name] - 1) for name in METRICS]
    assert difference[3:] == [f"{gain:+.1f} %" for gain in gains]
    for gain, bounds in zip(gains, interval[3:], strict=True):
        low, high = map(float, bounds.split(" .. "))
        assert low - 0.05 <= gain <= high + 0.05
    assert any(gains)


@pytest.mark.parametrize("distilling", [False, True])
def test_a_run_holds_its_weights_metrics_ranks_and_curve(distilled, distilling):
    folder = runs(distilled)[distilling]
    assert {path.name for path in folder.iterdir()} == FILES
    rows = pq.read_table(folder / "metrics.parquet").to_pylist()
    stored = {(row["split"], row["metric"]): row["value"] for row in rows}
    for split in ("valid", "test"):
        for name, value in mean_metrics(ranks_of(folder, split)).items():
            assert stored.pop((split, name)) == pytest.approx(value)
    assert not stored
    curve = pq.read_table(folder / "curve.parquet").to_pylist()
    facts = facts_of(folder)
    best = max(curve, key=lambda row: row["ndcg@10"])
    assert (facts["epochs"], facts["best_epoch"]) == (3, best["epoch"])
    assert [row["epoch"] for row in curve] == [1, 2, 3]
    assert best["ndcg@10"] == pytest.approx(mean_metrics(ranks_of(folder, "valid"))["ndcg@10"])


# --- what is trained again


def test_started_again_it_trains_nothing_and_prints_the_same_table(distilled, tmp_path, make_workplace):
    place = make_workplace(tmp_path / "again", distilled.store)
    before = identities(place)
    done = place.ckd("distill", *SHORT)
    assert done.returncode == 0, done.stderr
    assert identities(place) == before
    assert lines_of_training(done.stdout) == []
    assert table(done.stdout) == table(distilled.printed)


def test_some_students_are_trained_alone(distilled, tmp_path, make_workplace):
    place = make_workplace(tmp_path / "some", distilled.store)
    # The other domain has no labels, and needs none.
    raw = load_configuration(place.folder / "pipeline.yaml", ()).domains["tiny"].path
    other = ("--set", "students.other={kind: gru4rec, hidden: 8}", "--set", f"domains.more={{path: {raw}, k_core: 1}}")
    done = place.ckd("distill", *SHORT, *other, "--student", "other", "--domain", "tiny")
    assert done.returncode == 0, done.stderr
    assert {line.split("  epoch ")[0] for line in lines_of_training(done.stdout)} == {
        "  other, tiny, plain",
        "  other, tiny, distilled",
    }
    assert "small" not in done.stdout
    done = place.ckd("distill", "--student", "othr")
    assert (done.returncode, done.stderr) == (2, "error: --student: no student is named 'othr'; known: small\n")


FULL = """
import sys
import torch

def no_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory")

torch.optim.AdamW = no_memory
from ckd.pipeline.cli import main
sys.exit(main())
"""


def test_a_gpu_without_memory_is_one_line_and_leaves_nothing(labelled, tmp_path, make_workplace):
    place = make_workplace(tmp_path / "full", labelled.store)
    done = place.ckd("distill", code=FULL)
    assert done.returncode == 2
    assert done.stderr == (
        "error: small, tiny, plain: the GPU has no memory left; lower distill.batch_size or distill.labels_in_memory, "
        "of a sweep --jobs, or set device: cpu\n"
    )
    assert names(place) == set()


def test_another_temperature_is_one_new_run(distilled, tmp_path, make_workplace):
    place = make_workplace(tmp_path / "warm", distilled.store)
    before = identities(place)
    done = place.ckd("distill", *SHORT, "--set", "distill.temperature=2")
    assert done.returncode == 0, done.stderr
    assert len(names(place) - names(distilled)) == 1
    assert before.items() <= identities(place).items()
    assert {line.split("  epoch ")[0] for line in lines_of_training(done.stdout)} == {"  small, tiny, distilled"}


def test_another_seed_is_another_run_and_without_a_baseline_only_the_distilled_one(distilled, tmp_path, make_workplace):
    place = make_workplace(tmp_path / "seed", distilled.store)
    done = place.ckd("distill", *SHORT, "--set", "seed=1", "--set", "distill.baseline=false")
    assert done.returncode == 0, done.stderr
    (new,) = names(place) - names(distilled)
    other = results(place.store / "runs" / new)
    assert all(other[name] != digest for name, digest in results(runs(distilled)[True]).items())
    _, rows = table(done.stdout)
    assert [row[1:3] for row in rows] == [["uni (teacher)", ""], ["small", "yes"]]


def test_alpha_zero_is_the_truth_alone_and_needs_no_labels(distilled, workplace):
    done = workplace.ckd("distill", *SHORT, "--set", "distill.alpha=0")
    assert done.returncode == 0, done.stderr
    assert [row[1:3] for row in table(done.stdout)[1]] == [["small", "no"]]
    (only,) = workplace.store.glob("runs/*")
    plain = runs(distilled)[False]
    assert only.name == plain.name
    assert results(only) == results(plain)


# --- no teacher


def test_no_teacher_is_loaded_and_another_store_gets_the_same_students(
    labelled, distilled, tmp_path, make_workplace, guard
):
    """The teacher's files are read only to be hashed: what could open them is forbidden to be imported."""
    place = make_workplace(tmp_path / "elsewhere", labelled.store)
    done = place.ckd("distill", *SHORT, code=guard + MAIN, cold=True)
    assert done.returncode == 0, done.stderr
    assert len(lines_of_training(done.stdout)) == 6
    for distilling, folder in runs(distilled).items():
        assert results(runs(place)[distilling]) == results(folder)


def test_an_explanation_loads_no_teacher_trains_nothing_and_writes_nothing(labelled, guard):
    before = contents(labelled.folder)
    done = labelled.ckd("distill", "--explain", code=guard + MAIN, cold=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tiny: ")
    assert done.stderr == ""
    assert contents(labelled.folder) == before


@pytest.mark.parametrize("name", ["transformers", "ckd.stages.teachers.unisrec.teacher", "ckd.stages.precompute.label"])
def test_the_guard_of_that_test_works(workplace, guard, name):
    done = workplace.ckd(code=f"{guard}import {name}", cold=True)
    assert done.stderr.splitlines()[-1] == f"AssertionError: {name} is imported"


# --- what goes wrong


def test_missing_labels_are_one_line_and_nothing_is_written(workplace):
    before = contents(workplace.folder)
    done = workplace.ckd("distill", *SHORT)
    assert done.returncode == 2
    assert done.stderr == ("error: the store has no labels of teacher uni for domain tiny; run `ckd precompute`\n")
    assert done.stdout == ""
    assert contents(workplace.folder) == before
