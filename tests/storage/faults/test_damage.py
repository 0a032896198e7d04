"""Torn files and flipped bits in labels: whoever reads them notices, and no wrong number comes out."""

import random
import shutil
from collections import Counter

import pytest

from ckd.pipeline.config.load import load_configuration
from ckd.pipeline.plan import Plan
from ckd.storage.artifact import load_artifact
from ckd.storage.corpus import read_corpus
from ckd.storage.draft import RECEIPTS
from ckd.storage.errors import UserError
from ckd.storage.labels import part_name, read_labels
from ckd.storage.manifest import MANIFEST, SPARE
from ckd.storage.sql import Contents, ask, open_views
from ckd.storage.sql.contents import LabelSource
from ckd.storage.upkeep import checked, condition_of
from ckd.storage.vectors import VECTORS, read_vectors

pytestmark = pytest.mark.faults

FLIPS, OFFSETS = 1_000, 50
SQL_EVERY = 4
"""Of the short version: which flips SQL is asked about, too, which takes longer than all the rest."""
FOOTER_SHARE = 0.3
QUESTION = "select count(*), sum(position), sum(target_rank), sum(logsumexp), sum(list_sum(logprobs)) from labels"


@pytest.fixture(scope="module")
def place(undisturbed, make_place, tmp_path_factory):
    """A copy of the undisturbed place, to be damaged and mended."""
    return make_place(tmp_path_factory.mktemp("damaged") / "place", undisturbed.folder / "disk")


@pytest.fixture(scope="module")
def corpus(place):
    (artifact,) = place.store.all("corpus")
    return read_corpus(artifact)


@pytest.fixture(scope="module")
def labels(place):
    """The folder of the labels."""
    (artifact,) = place.store.all("labels")
    return artifact.path


@pytest.fixture(scope="module")
def answer(labels):
    return asked(labels)


def verified(folder, kind="labels"):
    """What `ckd verify` does with an artifact; return the files that it names."""
    (found,) = checked([condition_of(folder, kind)])
    return {path.name for path, _ in found.lines()}


def read(folder, corpus):
    """What `ckd distill` does with labels."""
    artifact = load_artifact(folder)
    if artifact is None:
        raise UserError("the store has only damaged labels")
    read_labels(artifact, corpus)
    read_vectors(artifact)


def asked(folder):
    """What `ckd sql` does with labels."""
    artifact = load_artifact(folder)
    if artifact is None:
        raise UserError("there are no labels")
    contents = Contents(labels=[LabelSource("uni", "tiny", artifact)])
    with open_views(contents, threads=1) as connection, ask(connection, QUESTION) as found:
        return [batch.to_pydict() for batch in found.batches()]


def notices(action, *arguments):
    try:
        action(*arguments)
    except UserError:
        return True
    return False


def footer(path):
    """The bytes of a Parquet file's footer."""
    return int.from_bytes(path.read_bytes()[-8:-4], "little") + 8


def flipped(path, draw, tail):
    """Flip one random bit of a file, of its last ``tail`` bytes if asked; return what it held."""
    content = path.read_bytes()
    bit = draw.randrange((len(content) - tail if tail else 0) * 8, len(content) * 8)
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    return content


def test_each_of_1000_flipped_bits_is_noticed_before_a_wrong_number_is_used(labels, corpus, answer, long, counted):
    draw = random.Random(2024)
    artifact = load_artifact(labels)
    names = [*artifact.files, MANIFEST]
    where, sql = Counter(), Counter()
    for number in range(FLIPS):
        path = labels / draw.choice(names)
        tail = footer(path) if path.suffix == ".parquet" and draw.random() < FOOTER_SHARE else 0
        content = flipped(path, draw, tail)
        where["manifest" if path.name == MANIFEST else "footers" if tail else "shards"] += 1
        # Of a manifest, its spare copy differs, too.
        assert verified(labels) == {path.name} or (path.name == MANIFEST and MANIFEST in verified(labels)), number
        assert notices(read, labels, corpus), (path.name, number)
        if long or number % SQL_EVERY == 0:
            # SQL does not read the item vectors, so it answers, and rightly.
            assert asked(labels) == answer if path.name == VECTORS else notices(asked, labels), (path.name, number)
            sql["not read" if path.name == VECTORS else "read"] += 1
        path.write_bytes(content)
    assert min(where.values()) > FLIPS // 10
    assert not verified(labels) and asked(labels) == answer
    spread = ", ".join(f"{count} in {name}" for name, count in sorted(where.items()))
    counted(f"faults: {FLIPS:,} flipped bits ({spread}): {FLIPS:,} noticed by verify and by what distill reads with")
    counted(f"faults: {sql['read']:,} of these were in what SQL reads and asked about: {sql['read']:,} noticed")


def test_every_shard_cut_off_at_50_offsets_is_noticed(labels, corpus, answer, counted):
    artifact = load_artifact(labels)
    cuts = 0
    for name in artifact.files:
        path = labels / name
        content = path.read_bytes()
        for part in range(OFFSETS):
            path.write_bytes(content[: len(content) * part // OFFSETS])
            cuts += 1
            assert verified(labels) == {name}
            assert notices(read, labels, corpus) and notices(asked, labels)
        path.write_bytes(content)
    assert asked(labels) == answer
    counted(f"faults: {cuts} files of labels cut off at {OFFSETS} offsets each, all noticed")


def test_flipped_bits_in_artifacts_of_every_kind_and_in_spare_copies_are_noticed(place, counted):
    draw = random.Random(7)
    flips = 0
    for kind in ("corpus", "text", "labels"):
        (artifact,) = place.store.all(kind)
        for name in [*artifact.files, MANIFEST, SPARE] * 20:
            content = flipped(artifact.path / name, draw, 0)
            flips += 1
            assert name in verified(artifact.path, kind)
            (artifact.path / name).write_bytes(content)
        assert not verified(artifact.path, kind)
    counted(f"faults: {flips} flipped bits in files, manifests and spare copies of all kinds, all noticed by verify")


def test_damaged_labels_are_refused_by_distill_with_one_line_and_made_again_by_precompute(
    place, driver, labels, whole, tmp_path, make_place
):
    broken = make_place(tmp_path / "broken", place.folder / "disk")
    folder = broken.store.root / labels.relative_to(place.store.root)
    student = ("--set", "students={small: {kind: sasrec, hidden: 8, blocks: 1, max_length: 8}}")
    flipped(folder / part_name(0), random.Random(1), 0)
    done = driver.run(broken.folder, "distill", *student)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith(f"error: {folder / part_name(0)} is damaged: ")
    assert not list(broken.store.root.glob("runs/*"))
    done = driver.run(broken.folder, "verify")
    assert (done.code, done.err) == (1, "")
    done = driver.run(broken.folder, "sql", QUESTION)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith(f"error: {folder / part_name(0)} is damaged: ")
    flipped(folder / MANIFEST, random.Random(1), 0)
    done = driver.run(broken.folder, "distill", *student)
    assert (done.code, done.err) == (
        2,
        "error: the store has only damaged labels of teacher uni for domain tiny; run `ckd precompute`\n",
    )
    assert driver.run(broken.folder, "precompute").code == 0
    assert broken.artifacts() == whole


def test_a_shard_or_a_receipt_that_was_damaged_after_a_kill_is_not_trusted(
    driver, make_place, whole, tmp_path, long, counted
):
    place = make_place(tmp_path / "place")
    n = 1
    while not list(place.store.root.glob(f"labels/*/*/.key=*.partial/{RECEIPTS}/{part_name(1)}.json")):
        shutil.rmtree(place.folder)
        place = make_place(tmp_path / "place")
        n += 20
        assert driver.run(place.folder, "precompute", fault=("kill before", n)).code != 0
    plan = Plan(load_configuration(place.folder / "pipeline.yaml"))
    draft = plan.store.peek(plan.labels("uni", "tiny"))
    draw = random.Random(3)
    names = [path.stem for path in (draft.partial / RECEIPTS).iterdir()]
    cases = 0
    for name in names * (60 if long else 15):
        for path in (draft.partial / name, draft.partial / RECEIPTS / f"{name}.json"):
            content = flipped(path, draw, 0)
            cases += 1
            found = draft.receipt(name)
            path.write_bytes(content)
            # A space may become another white space; what the receipt says must be what it said.
            assert found is None or (path.suffix == ".json" and found == draft.receipt(name))
    for number in range(OFFSETS):
        path = draft.partial / part_name(0)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * number // OFFSETS])
        assert draft.receipt(part_name(0)) is None
        path.write_bytes(content)
    flipped(draft.partial / part_name(0), draw, 0)
    flipped(draft.partial / RECEIPTS / f"{part_name(1)}.json", draw, 0)
    assert driver.run(place.folder, "precompute").code == 0
    assert place.artifacts() == whole
    counted(f"faults: {cases} flipped bits and {OFFSETS} cuts in what a kill left, none trusted")
