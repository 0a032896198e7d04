"""Teachers that are brought along, as processes: item vectors of any model, any text encoder, one of item IDs alone."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ckd.pipeline import cli

TEACHERS = {
    "bought": "kind: embeddings, vectors: 'bought/{domain}.npy', query: mean, max_length: 4",
    "text": "kind: hf, fields: [brand, title], pooling: cls, decay: 0.3",
    "ids": "kind: sasrec, train: {hidden: 8, blocks: 1, max_length: 8, epochs: 3, batch_size: 16, learning_rate: 0.01}",
}
TRAINED_ALREADY = "kind: sasrec, checkpoint: 'exported/ids/{domain}'"


def teachers(place, **sections):
    """Replace the workplace's teachers by these."""
    head, _, rest = (place.folder / "pipeline.yaml").read_text().partition("teachers:\n")
    lines = [f"  {name}: {{{section}}}\n" for name, section in sections.items()]
    tail = rest[rest.index("labels:") :]
    (place.folder / "pipeline.yaml").write_text(f"{head}teachers:\n{''.join(lines)}{tail}")


def write_vectors(place, corpus):
    """Random vectors of the catalogue and of one more item, in another order than the catalogue's."""
    ids = [*reversed(corpus.items["item_id"].to_pylist()), "unknown"]
    vectors = np.random.default_rng(3).normal(size=(len(ids), 6)).astype(np.float32)
    folder = place.folder / "bought"
    folder.mkdir()
    np.save(folder / "tiny.npy", vectors)
    (folder / "tiny.ids.json").write_text(json.dumps(ids))
    return vectors[:-1][::-1]


def done(place, *arguments):
    process = place.ckd(*arguments)
    assert process.returncode == 0, process.stderr
    return process.stdout


def labels(place, teacher, store="store"):
    """All labels of a teacher as one table, and its item vectors."""
    (folder,) = (place.folder / store / "labels" / f"teacher={teacher}" / "domain=tiny").glob("key=*")
    parts = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    return pa.concat_tables(parts).combine_chunks(), pq.read_table(folder / "vectors.parquet")


@pytest.fixture(scope="module")
def bought(tmp_path_factory, make_workplace, world):
    """A workplace in which the three teachers are trained as far as they are, and have labelled; and the vectors."""
    place = make_workplace(tmp_path_factory.mktemp("kinds") / "workplace")
    vectors = write_vectors(place, world.corpus)
    teachers(place, **TEACHERS)
    done(place, "pretrain", "--export", "exported")
    shutil.copytree(place.store, place.folder / "other")
    done(place, "precompute")
    return place, vectors


def test_item_vectors_in_a_file_are_the_teacher_that_they_describe(bought, world):
    place, vectors = bought
    table, stored = labels(place, "bought")
    centred = vectors.astype(np.float64) - vectors.astype(np.float64).mean(0)
    items = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(np.stack(stored["vector"].to_pylist()), items, atol=1e-6)
    users = world.corpus.user_ids.to_pylist()
    for row in table.to_pylist()[::17]:
        history = world.corpus.sequence_of(users.index(row["user_id"]))[: row["position"]][-4:]
        query = items[history].mean(0)
        # In half precision, as a query is stored.
        scores = items @ (query / np.linalg.norm(query) / 0.2).astype(np.float16).astype(np.float64)
        best = np.argsort(-scores, kind="stable")[:7]
        assert row["items"] == best.tolist()
        np.testing.assert_allclose(row["logprobs"], (scores - np.log(np.exp(scores).sum()))[best], atol=5e-3)


def test_the_key_of_such_labels_is_the_digest_of_the_files_and_how_they_are_read(bought):
    place, _ = bought
    (manifest,) = place.store.glob("labels/teacher=bought/domain=tiny/key=*/manifest.json")
    inputs = json.loads(manifest.read_text())["inputs"]
    assert inputs["teacher"].keys() == {"vectors", "rows"}
    assert inputs["text"] is None
    assert inputs["scoring"] == {
        **{"weight": 1.0, "max_length": 4, "similarity": "cosine", "temperature": 0.2, "center": True}
    }


def test_a_text_encoder_has_its_own_text_vectors_and_they_are_its_identity(bought, world):
    place, _ = bought
    found = {}
    for path in place.store.glob("text/*/manifest.json"):
        manifest = json.loads(path.read_text())
        found[manifest["key"]] = manifest["inputs"]
    (labelled,) = place.store.glob("labels/teacher=text/domain=tiny/key=*/manifest.json")
    inputs = json.loads(labelled.read_text())["inputs"]
    assert inputs["teacher"] == {}
    own = found.pop(inputs["text"])
    assert (own["fields"], own["pooling"], own["max_tokens"]) == (["brand", "title"], "cls", 12)
    assert [other["pooling"] for other in found.values()] == ["mean"]


def test_text_vectors_that_a_domain_brings_stand_for_the_common_encoder_and_not_for_a_teachers_own(workplace, world):
    write_vectors(workplace, world.corpus)
    teachers(workplace, common="kind: hf", own="kind: hf, fields: [title]")
    done(workplace, "precompute", "--set", "domains.tiny.text_vectors=bought/tiny.npy")
    width = {name: len(labels(workplace, name)[1]["vector"][0]) for name in ("common", "own")}
    assert width == {"common": 6, "own": world.text.vectors.shape[1]}


def test_labels_are_the_same_whatever_the_batch_and_the_cut_into_shards(bought):
    place, _ = bought
    done(place, "precompute", "--set", "store=other", "--set", "labels.batch_size=3", "--set", "labels.shard_rows=50")
    for teacher in TEACHERS:
        (table, vectors), (other, again) = labels(place, teacher), labels(place, teacher, "other")
        assert table.equals(other)
        assert vectors.equals(again)


def test_an_exported_teacher_of_ids_gives_the_labels_of_the_one_in_the_store(bought, make_workplace, tmp_path):
    place, _ = bought
    other = make_workplace(tmp_path / "workplace")
    shutil.copytree(place.folder / "exported", other.folder / "exported")
    teachers(other, ids=TRAINED_ALREADY)
    done(other, "precompute")
    for mine, theirs in zip(labels(place, "ids"), labels(other, "ids"), strict=True):
        assert mine.equals(theirs)


def test_a_student_learns_from_all_of_them(bought):
    place, _ = bought
    short = ("--set", "distill.epochs=2")
    done(place, "distill", *short)
    steps = [line for line in done(place, "status", *short).splitlines() if line.startswith("ckd ")]
    assert {line.split()[1] for line in steps} == {"prepare", "pretrain", "precompute", "distill"}
    assert all(" reuse " in line for line in steps)
    (manifest,) = [path for path in place.store.glob("runs/*/manifest.json") if '"bought"' in path.read_text()]
    assert json.loads(manifest.read_text())["inputs"]["labels"]["tiny"].keys() == TEACHERS.keys()


# --- what does not fit


@pytest.fixture
def refused(workplace, world, monkeypatch, capfd):
    """A function that runs `ckd` with one teacher and returns the one line that it is answered with."""
    write_vectors(workplace, world.corpus)
    monkeypatch.chdir(workplace.folder)

    def run(section, command="precompute"):
        teachers(workplace, mine=section)
        assert cli.main([command]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        return line.removeprefix("error: ").replace(f"{workplace.folder}/", "")

    return run


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("kind: embeddings", "pipeline.yaml:7: teachers.mine.vectors: missing"),
        (
            "kind: embeddings, vectors: bought/tiny.npy, query: last, decay: 0.5",
            "pipeline.yaml:7: teachers.mine: decay belongs to query: decay, and query is last; ",
        ),
        ("kind: embeddings, vectors: bought/tiny.npy, decay: 1", "pipeline.yaml:7: teachers.mine.decay: must be below"),
        (
            "kind: embeddings, vectors: 'nowhere/{domain}.npy'",
            "teachers.mine.vectors: nowhere/tiny.npy does not exist; name an existing file, with {domain} where ",
        ),
        ("kind: embeddings, vectors: bought", "teachers.mine.vectors: bought is no file; "),
        ("kind: embeddings, vectors: bought/tiny.ids.json", "bought/tiny.ids.json: item vectors are read from "),
        ("kind: hf, encoder: ./nowhere", "teachers.mine.encoder: there is no folder "),
        ("kind: hf, encoder: nobody/nothing", "teachers.mine.encoder: nobody/nothing is not on this machine "),
        ("kind: hf, max_tokens: 33", "teachers.mine.max_tokens: 33 is more than the 32 tokens that "),
        ("kind: hf, fields: [title, title]", "pipeline.yaml:7: teachers.mine.fields: names a field twice"),
        ("kind: hf, fields: [description]", "no item of corpus "),
        ("kind: hf, pooling: max", "pipeline.yaml:7: teachers.mine.pooling: must be one of "),
        ("kind: sasrec", "pipeline.yaml:7: teachers.mine: give either train (`train: {}` for the defaults) or "),
        ("kind: sasrec, train: {hidden: 9}", "pipeline.yaml:7: teachers.mine.train: hidden (9) must be a multiple of"),
        ("kind: sasrec, train: {}", "teacher mine is not trained yet; run `ckd pretrain` first"),
        ("kind: sasrec, checkpoint: 'away/{domain}'", "teachers.mine.checkpoint: away/tiny/config.json does not exist"),
    ],
)
def test_what_does_not_fit_is_one_line(refused, section, said):
    assert refused(section).startswith(said)


def test_vectors_that_lack_an_item_are_refused_with_the_item(refused, workplace, world):
    ids = [f"other {name}" for name in world.corpus.items["item_id"].to_pylist()]
    (workplace.folder / "bought" / "tiny.ids.json").write_text(json.dumps([*ids, "item-00"]))
    line = refused("kind: embeddings, vectors: bought/tiny.npy")
    assert line.startswith("bought/tiny.npy has no vector of 39 of the domain's 40 items (first: 'item-01'); ")


def test_vectors_that_are_no_numbers_are_refused_with_the_item(refused, workplace):
    vectors = np.load(workplace.folder / "bought" / "tiny.npy")
    vectors[39, 2] = np.nan
    np.save(workplace.folder / "bought" / "tiny.npy", vectors)
    line = refused("kind: embeddings, vectors: bought/tiny.npy")
    assert line.startswith("bought/tiny.npy: the vector of item 'item-00' holds NaN, ")


def test_there_is_nothing_to_train_in_vectors_and_encoders(refused):
    line = refused("kind: hf", "pretrain")
    assert line.startswith("teachers: none has `pretrain`, `adapt` or `train`, so there is nothing to train; ")
