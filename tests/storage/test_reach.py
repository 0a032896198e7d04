"""What an artifact was made from is found by the keys and digests that its inputs name, and by nothing else."""

import pytest

from ckd.storage.keys import Address
from ckd.storage.manifest import MANIFEST, SPARE
from ckd.storage.reach import nodes, reached
from ckd.storage.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def committed(store, kind, inputs, partitions=(), text="x"):
    with store.draft(Address(kind, inputs, partitions)) as draft:
        draft.add("model.safetensors", lambda path: path.write_text(text))
        draft.add("curve.parquet", lambda path: path.write_text("the same curve"))
        return draft.commit()


def labels_of(store, teacher, corpus, text, name="uni", **more):
    inputs = {"kind": "unisrec", "scoring": {}, "corpus": corpus.key, "text": text.key, "teacher": teacher, **more}
    return committed(store, "labels", inputs, (("teacher", name), ("domain", "tiny")))


def weights(artifact):
    return {"model.safetensors": artifact.files["model.safetensors"].sha256}


@pytest.fixture
def world(store):
    """A run of labels out of fold, with all that is behind it, and a twin of each that is behind nothing."""
    made = {}
    for name in ("used", "unused"):
        corpus = committed(store, "corpus", {"items": name})
        text = committed(store, "text", {"corpus": corpus.key})
        source = committed(store, "text", {"source": name})
        pretrained = committed(store, "teachers", {"sources": [source.key]}, text=f"pretrained {name}")
        start = weights(pretrained)
        adapted, fold = (
            committed(
                store, "teachers", {"start": start, "fold": number, "corpus": corpus.key}, text=f"{name} {number}"
            )
            for number in (0, 1)
        )
        labels = labels_of(store, weights(adapted), corpus, text, folds={"teachers": [weights(fold)], "rule": "r"})
        opinion = {name: labels.inputs[name] for name in ("kind", "scoring", "corpus", "text")}
        vectors, of_fold = (
            committed(store, "vectors", {**opinion, "teacher": weights(teacher)}) for teacher in (adapted, fold)
        )
        run = (
            committed(store, "runs", {"corpora": {"tiny": corpus.key}, "labels": {"tiny": {"uni": labels.key}}})
            if name == "used"
            else None
        )
        made[name] = [
            corpus,
            text,
            source,
            pretrained,
            adapted,
            fold,
            labels,
            vectors,
            of_fold,
            *([run] if run else []),
        ]
    return made


def folders(artifacts):
    return {artifact.path for artifact in artifacts}


def of_kind(store, kind):
    return [node for node in nodes(store) if node.kind == kind]


def test_from_a_run_all_is_reached_that_it_was_made_from_and_none_of_the_rest(store, world):
    assert reached(nodes(store), of_kind(store, "runs")) == folders(world["used"])


def test_from_nothing_nothing_is_reached(store, world):
    assert reached(nodes(store), []) == set()


def test_teachers_are_not_told_by_their_curves(store, world):
    """Two trainings may end with the same file that determines nothing."""
    corpus, text = world["used"][:2]
    curve = world["used"][4].files["curve.parquet"].sha256
    labels = labels_of(store, {"model.safetensors": curve}, corpus, text, name="other")
    (root,) = (node for node in of_kind(store, "labels") if node.folder == labels.path)
    assert reached(nodes(store), [root]) == folders([labels, corpus, text])


def test_what_is_torn_is_reached_by_its_manifest_and_what_has_none_by_its_folder(store, world):
    corpus, text, *_, labels, _, _, _ = world["used"]
    (labels.path / "model.safetensors").unlink()
    (labels.path / MANIFEST).unlink()
    for name in (MANIFEST, SPARE):
        (corpus.path / name).write_text("{}")
    every = nodes(store)
    assert {node.folder for node in every if not node.sound} == {labels.path, corpus.path}
    assert reached(every, of_kind(store, "runs")) == folders(world["used"])
    assert text.path in reached(every, of_kind(store, "runs"))


def test_what_is_being_mended_still_refers_to_what_it_was_made_from(store, world):
    labels = world["used"][6]
    store.reopen(labels, ["model.safetensors"])
    assert reached(nodes(store), of_kind(store, "runs")) == folders(world["used"])
    (node,) = (node for node in nodes(store) if node.folder == labels.path)
    assert not node.there
