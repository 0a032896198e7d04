"""`ckd` with its store on S3: the same labels as on a disk, killed, resumed, asked in SQL, and students from them."""

import json
import shutil
import signal
import time
import uuid

import pyarrow.parquet as pq
import pytest

from ckd.pipeline import cli
from ckd.storage.cache import VARIABLE
from ckd.storage.files import sha256_file
from ckd.storage.location import below, matching, read
from ckd.storage.manifest import MANIFEST
from ckd.storage.store import Store

SMALL = ("--set", "labels.shard_rows=8")
ONCE = ("--set", "distill.epochs=1")


@pytest.fixture
def url(s3, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return f"{s3}/{uuid.uuid4().hex}"


@pytest.fixture
def there(url):
    return "--set", f"store={url}"


def digests_of(artifact):
    return {name: receipt.sha256 for name, receipt in artifact.files.items()}


def on_disk(place):
    files = json.loads((place.labels / MANIFEST).read_text())["files"]
    return {name: record["sha256"] for name, record in files.items()}


@pytest.fixture
def ckd(workplace, monkeypatch, capfd):
    """A function that runs a command in this process, which must end well, and returns what it printed."""
    monkeypatch.chdir(workplace.folder)

    def run(*arguments):
        code = cli.main(arguments)
        out, err = capfd.readouterr()
        assert code == 0, err
        return out

    return run


def test_every_step_works_with_a_store_on_s3_and_gives_the_same_labels(workplace, labelled, url, there, ckd):
    ckd("precompute", *SMALL, *there)
    (labels,) = Store(url).all("labels")
    assert digests_of(labels) == on_disk(labelled)
    assert all(
        each.sound(name)
        for kind in ("corpus", "text", "labels")
        for each in Store(url).all(kind)
        for name in each.files
    )
    shutil.rmtree(workplace.store)  # from here on nothing can come from a folder
    assert "reuse" in ckd("status", *there)
    answer = ckd("sql", "select count(*) as n from labels", "--format", "csv", *there)
    assert answer.split() == ["n", str(sum(receipt.rows for name, receipt in labels.files.items() if "part" in name))]
    ckd("distill", *ONCE, *there)
    runs = Store(url).all("runs")
    assert sorted(run.inputs["distilled"] for run in runs) == [False, True]
    ckd("recommend", "small/tiny", "--k", "3", "--out", "best.parquet", *ONCE, *there)
    assert pq.read_table(workplace.folder / "best.parquet").num_rows > 0


def test_what_was_killed_on_s3_is_gone_on_with_by_another_machine(
    workplace, labelled, url, there, tmp_path, monkeypatch, ckd
):
    process = workplace.start("precompute", *SMALL, *there)
    root = Store(url).root
    while not (left := matching(root, "labels/*/*/.key=*.partial/.receipts/part-*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert Store(url).all("labels") == []
    monkeypatch.setenv(VARIABLE, str(tmp_path / "another machine"))
    status = ckd("status", *SMALL, *there)
    assert "resume (" in status
    kept = {below(path, root)[-1] for path in left}
    before = {path: read(path) for path in left}
    ckd("precompute", *SMALL, *there)
    (labels,) = Store(url).all("labels")
    assert digests_of(labels) == on_disk(labelled)
    assert kept
    assert {json.loads(text)["receipt"]["sha256"] for text in before.values()} <= {*digests_of(labels).values()}


def test_a_flipped_bit_on_s3_is_noticed_before_a_student_learns_from_it(url, there, tmp_path, monkeypatch, ckd, capfd):
    ckd("precompute", *there)
    (labels,) = Store(url).all("labels")
    path = labels.path / "part-00001.parquet"
    content = bytearray(read(path))
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "of a machine that has no copies"))
    for command in (("distill", *ONCE), ("sql", "select avg(kept_mass) from labels")):
        code = cli.main([*command, *there])
        out, err = capfd.readouterr()
        assert (code, out) == (2, "")
        assert "part-00001.parquet is damaged" in err
        assert "Traceback" not in err


def test_a_store_that_does_not_answer_is_one_line(workplace, there, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    done = workplace.ckd("status", *there)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: store {there[1].removeprefix('store=')} cannot be reached: ")


def test_the_copies_are_under_the_folder_that_is_named(url, there, tmp_path, ckd):
    ckd("prepare", *there)
    (corpus,) = Store(url).all("corpus")
    copy = corpus.verified("items.parquet")
    assert copy.is_relative_to(tmp_path / "cache")
    assert sha256_file(copy) == corpus.files["items.parquet"].sha256
