"""Stores of earlier versions are read as they are. The committed one was written before manifest schema 2."""

import hashlib
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ckd.pipeline import cli
from ckd.storage.artifact import MAKERS
from ckd.storage.errors import DamagedArtifact
from ckd.storage.files import sha256_file
from ckd.storage.keys import canonical_json, key_of
from ckd.storage.manifest import MANIFEST, MANIFEST_SCHEMA
from ckd.storage.store import Store

OLD = Path(__file__).parent / "old_store" / "schema-1"
KINDS = {"corpus": 1, "teachers": 1, "labels": 1, "runs": 2}


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy of the old store, with its configuration and raw files, in which `ckd` runs."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return Store(tmp_path / "old" / "store")


def contents(store):
    return {path: sha256_file(path) for path in store.root.rglob("*") if path.is_file() and path.suffix != ".lock"}


def ran(capfd, *arguments):
    """What `ckd` printed: code, standard output, standard error."""
    code = cli.main(arguments)
    shown = capfd.readouterr()
    return code, shown.out, shown.err


def test_every_artifact_of_the_old_store_is_found_whole_and_under_the_key_of_its_inputs(old):
    found = {kind: old.all(kind) for kind in MAKERS}
    assert {kind: len(artifacts) for kind, artifacts in found.items() if artifacts} == KINDS
    for artifact in (each for artifacts in found.values() for each in artifacts):
        assert artifact.manifest["schema"] == MANIFEST_SCHEMA - 1
        assert "digest" not in artifact.manifest
        assert artifact.key == key_of(artifact.kind, artifact.inputs)
        artifact.verify()


def test_status_reuses_what_it_holds(old, capfd):
    before = contents(old)
    code, out, err = ran(capfd, "status")
    assert (code, err) == (0, "")
    reused = [line.split()[2] for line in out.splitlines() if " reuse " in line]
    assert {"corpus", "labels"} <= set(reused)
    assert contents(old) == before


def test_a_teacher_whose_training_has_changed_since_is_trained_anew_or_named_as_a_checkpoint(old, capfd):
    trained = "teachers.ids={kind: sasrec, train: {hidden: 4, blocks: 1, heads: 1, max_length: 4, epochs: 1}}"
    code, out, _ = ran(capfd, "status", "--set", trained)
    (line,) = [line for line in out.splitlines() if line.startswith("ckd pretrain")]
    assert code == 0
    assert "changed since the stored one: " in line
    assert "format" in line


def test_it_is_asked_in_sql(old, capfd):
    (labels,) = old.all("labels")
    rows = [row for path in sorted(labels.path.glob("part-*")) for row in pq.read_table(path).to_pylist()]
    question = "select count(*) as n, sum(target_rank) as ranks from labels where teacher = 'ids' and domain = 'tiny'"
    code, out, err = ran(capfd, "sql", "--format", "json", question)
    assert (code, err) == (0, "")
    assert json.loads(out) == [{"n": len(rows), "ranks": sum(row["target_rank"] for row in rows)}]
    code, out, _ = ran(capfd, "sql", "--format", "json", "select count(*) as n from runs")
    assert (code, json.loads(out)) == (0, [{"n": KINDS["runs"]}])


def test_students_learn_from_its_labels_and_what_is_new_is_written_in_the_schema_of_now(old, capfd):
    before = contents(old)
    code, _, err = ran(capfd, "distill", "--set", "distill.epochs=2")
    assert (code, err) == (0, "")
    after = contents(old)
    assert {path: digest for path, digest in after.items() if path in before} == before
    new = [artifact for artifact in old.all("runs") if artifact.path / MANIFEST not in before]
    assert [artifact.manifest["schema"] for artifact in new] == [MANIFEST_SCHEMA] * 2
    assert {path.relative_to(old.root).parts[0] for path in after.keys() - before.keys()} == {"runs"}
    (labels,) = old.all("labels")
    assert labels.key in [run.inputs["labels"]["tiny"].get("ids") for run in new]


@pytest.mark.parametrize("kind", KINDS)
def test_damage_to_its_files_is_noticed(old, kind):
    artifact = old.all(kind)[0]
    for name in artifact.files:
        path = artifact.path / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
        with pytest.raises(DamagedArtifact, match=name):
            artifact.verify()
        content[len(content) // 2] ^= 4
        path.write_bytes(content[:-1])
        assert artifact.path in old.damaged(kind)
        path.write_bytes(content)
    artifact.verify()


def of_schema(store, schema, whole):
    """Let the manifest of the labels say that it is of another schema, with a right digest if it is to be whole."""
    (labels,) = store.all("labels")
    content = {**labels.manifest, "schema": schema, "unheard of": []}
    if whole:
        content["digest"] = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    path = labels.path / MANIFEST
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("command", ["status", "precompute", "distill"])
def test_a_store_of_a_newer_version_is_refused_with_one_line_and_left_as_it_is(old, capfd, command):
    path = of_schema(old, MANIFEST_SCHEMA + 1, whole=True)
    before = contents(old)
    code, _, err = ran(capfd, command, "--set", "distill.epochs=3")
    assert code == 2
    assert err == (
        f"error: {path} has manifest schema {MANIFEST_SCHEMA + 1}, this ckd reads schema {MANIFEST_SCHEMA}: "
        "use the version of ckd that wrote it, or another store\n"
    )
    assert contents(old) == before


def test_a_manifest_that_says_so_without_the_digest_that_every_later_one_holds_is_damaged(old, capfd):
    path = of_schema(old, MANIFEST_SCHEMA + 1, whole=False)
    assert old.damaged("labels") == [path.parent]
    code, _, err = ran(capfd, "distill", "--set", "distill.epochs=3")
    assert (code, err) == (
        2,
        "error: the store has only damaged labels of teacher ids for domain tiny; run `ckd precompute`\n",
    )
