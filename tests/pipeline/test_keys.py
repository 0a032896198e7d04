"""Keys of a real plan over real files: which input changes which key, and what changes none."""

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from ckd.pipeline.config.load import load_configuration
from ckd.pipeline.plan import Pending, Plan, Run
from ckd.storage.artifact import MAKERS
from ckd.storage.errors import UserError
from ckd.storage.keys import SHORT, key_of
from ckd.storage.manifest import MANIFEST
from ckd.storage.store import Store

PIPELINE = """\
store: store
device: cpu
domains:
  tiny: {path: raw, k_core: 1}
text: {encoder: ./encoder, max_tokens: 12}
teachers:
  uni: {kind: unisrec, checkpoint: teacher}
  rec: {kind: recformer, checkpoint: recformer, precision: float32}
labels: {top_k: 7, batch_size: 16, shard_rows: 128, precision: float16}
students:
  small: {kind: sasrec, hidden: 8, blocks: 1, max_length: 8}
"""
CORPUS, TEXT, PLAIN, TAUGHT = "corpus", "text", "plain run", "taught run"
UNI, REC, VECTORS, AGREEMENT = "labels of uni", "labels of rec", "item vectors of rec", "agreement"
LABELS = {UNI, REC, AGREEMENT, TAUGHT}
OF_UNI, OF_REC = {UNI, AGREEMENT, TAUGHT}, {REC, VECTORS, AGREEMENT, TAUGHT}
OF_TEXT = {TEXT, *OF_UNI}
RUNS = {PLAIN, TAUGHT}
ALL = {CORPUS, TEXT, VECTORS, PLAIN, *LABELS}


@pytest.fixture
def folder(world, make_recformer, tmp_path):
    """A folder with a configuration and all that it names, in which two interactions of a user have one timestamp."""
    place = tmp_path / "place"
    for name, source in (("raw", world.raw), ("encoder", world.encoder), ("teacher", world.teacher)):
        shutil.copytree(source, place / name)
    make_recformer(place / "recformer")
    (place / "pipeline.yaml").write_text(PIPELINE)
    with interactions(place) as rows:
        rows[1]["timestamp"] = rows[0]["timestamp"]
    return place


class edited:  # noqa: N801 - reads as a verb where it is used
    """The rows of a Parquet file, written back as they are when the body ends."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> list[dict]:
        table = pq.read_table(self._path)
        self._schema, self._rows = table.schema, table.to_pylist()
        return self._rows

    def __exit__(self, *_: object) -> None:
        pq.write_table(pa.Table.from_pylist(self._rows, self._schema), self._path)


def interactions(folder):
    return edited(folder / "raw" / "interactions.parquet")


def items(folder):
    return edited(folder / "raw" / "items.parquet")


def plan_of(folder, *overrides, file="pipeline.yaml"):
    return Plan(load_configuration(folder / file, overrides))


def keys(folder, *overrides, file="pipeline.yaml"):
    plan = plan_of(folder, *overrides, file=file)
    addresses = {
        CORPUS: plan.corpus("tiny"),
        TEXT: plan.text("tiny", plan.configuration.text),
        UNI: plan.labels("uni", "tiny"),
        REC: plan.labels("rec", "tiny"),
        VECTORS: plan.item_vectors("rec", "tiny"),
        AGREEMENT: plan.agreement(*plan.pairs("tiny")[0], "tiny"),
        PLAIN: plan.run(Run("small", ("tiny",), False)),
        TAUGHT: plan.run(Run("small", ("tiny",), True)),
    }
    return {what: address.key for what, address in addresses.items()}


def changed(before, after):
    return {what for what in before if before[what] != after[what]}


# --- files


def one_title(folder):
    with items(folder) as rows:
        rows[3]["title"] += "s"


def one_brand_that_was_missing(folder):
    with items(folder) as rows:
        next(row for row in rows if row["brand"] is None)["brand"] = "red"


def one_interaction_less(folder):
    with interactions(folder) as rows:
        del rows[-1]


def one_interaction_with_another_item(folder):
    with interactions(folder) as rows:
        rows[5]["item_id"] = "item-00" if rows[5]["item_id"] != "item-00" else "item-01"


def one_timestamp(folder):
    with interactions(folder) as rows:
        rows[-1]["timestamp"] += 1


def the_order_of_two_interactions_at_one_time(folder):
    with interactions(folder) as rows:
        assert rows[0]["user_id"] == rows[1]["user_id"] and rows[0]["item_id"] != rows[1]["item_id"]
        rows[0], rows[1] = rows[1], rows[0]


def one_weight_of(file):
    def change(folder):
        path = folder / file
        tensors = load_file(path)
        name = sorted(tensors)[0]
        tensors[name] = tensors[name].copy()
        tensors[name].ravel()[-1] += 1e-3
        save_file(tensors, path, {"format": "pt"})

    return change


def one_piece_of(file):
    """Another vocabulary: two pieces change their numbers."""

    def change(folder):
        path = folder / file
        content = json.loads(path.read_text())
        vocabulary = content["model"]["vocab"]
        one, other = sorted(vocabulary)[-2:]
        vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
        path.write_text(json.dumps(content))

    return change


def one_value_of(file, *path):
    def change(folder):
        content = json.loads((folder / file).read_text())
        inner = content
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = not inner[path[-1]] if isinstance(inner[path[-1]], bool) else inner[path[-1]] + 1
        (folder / file).write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    ("change", "concerned"),
    [
        (one_title, ALL),
        (one_brand_that_was_missing, ALL),
        (one_interaction_less, ALL),
        (one_interaction_with_another_item, ALL),
        (one_timestamp, ALL),
        (the_order_of_two_interactions_at_one_time, ALL),
        (one_weight_of("teacher/model.safetensors"), OF_UNI),
        (one_value_of("teacher/config.json", "network", "max_length"), OF_UNI),
        (one_weight_of("recformer/model.safetensors"), OF_REC),
        (one_piece_of("recformer/tokenizer.json"), OF_REC),
        (one_weight_of("encoder/model.safetensors"), OF_TEXT),
        (one_piece_of("encoder/tokenizer.json"), OF_TEXT),
        (one_value_of("encoder/tokenizer_config.json", "model_max_length"), OF_TEXT),
        (one_value_of("encoder/config.json", "num_attention_heads"), OF_TEXT),
    ],
    ids=lambda value: getattr(value, "__qualname__", "").replace(".<locals>", "") or None,
)
def test_a_changed_file_changes_the_keys_of_all_that_depends_on_it_and_no_other(folder, change, concerned):
    before = keys(folder)
    change(folder)
    assert changed(before, keys(folder)) == concerned


# --- settings


@pytest.mark.parametrize(
    ("override", "concerned"),
    [
        ("domains.tiny.k_core=2", ALL),
        ("domains.tiny.columns={title: brand, brand: title}", ALL),
        ("text.fields=[brand, title]", OF_TEXT),
        ("text.style=unisrec", OF_TEXT),
        ("text.max_tokens=11", OF_TEXT),
        ("text.pooling=cls", OF_TEXT),
        ("teachers.rec.precision=float64", OF_REC),
        ("labels.top_k=6", LABELS),
        ("labels.splits=[train, valid]", LABELS),
        ("labels.precision=fixed", LABELS),
        ("labels.precision=exact", LABELS),
        ("labels.precision=bfloat16", LABELS),
        ("seed=1", RUNS),
        ("students.small.hidden=16", RUNS),
        ("students.small.learning_rate=0.1", RUNS),
        ("distill.epochs=3", RUNS),
        ("distill.batch_size=9", RUNS),
        ("evaluate.mask_history=true", RUNS),
        ("distill.temperature=2", {TAUGHT}),
        ("distill.alpha=0.1", {TAUGHT}),
    ],
)
def test_a_changed_setting_changes_the_keys_of_all_that_depends_on_it_and_no_other(folder, override, concerned):
    assert changed(keys(folder), keys(folder, override)) == concerned


def test_labels_without_states_are_others(folder):
    readable = "distill.loss={top_k: 1}"  # the other losses need states
    assert changed(keys(folder, readable), keys(folder, readable, "labels.state=false")) == LABELS


@pytest.mark.parametrize(
    ("number", "module", "concerned"),
    [
        ("CORPUS_FORMAT", "ckd.stages.prepare.address", ALL),
        ("TEXT_FORMAT", "ckd.stages.text.address", OF_TEXT),
        ("LABEL_FORMAT", "ckd.stages.precompute.address", {VECTORS, *LABELS}),
        ("AGREEMENT_FORMAT", "ckd.stages.precompute.address", {AGREEMENT}),
        ("RUN_FORMAT", "ckd.stages.distill.address", RUNS),
    ],
)
def test_a_newer_format_changes_the_keys_of_its_kind_and_of_all_that_depends_on_it(
    folder, monkeypatch, number, module, concerned
):
    before = keys(folder)
    monkeypatch.setattr(f"{module}.{number}", 99)
    assert changed(before, keys(folder)) == concerned


# --- what can't matter


@pytest.mark.parametrize(
    "override",
    [
        "labels.batch_size=3",
        "labels.shard_rows=7",
        "device=cuda",
        "device=auto",
        "cluster.scheduler=tcp://elsewhere:8786",
        "domains.tiny.max_rejected=0.5",
        "domains.tiny.columns={title: title}",
        "evaluate.bootstrap=700",
        "store=elsewhere",
        "labels.splits=[test, train, valid]",
        "teachers={rec: {kind: recformer, checkpoint: recformer, precision: float32}, "
        "uni: {kind: unisrec, checkpoint: teacher}}",
    ],
)
def test_what_changes_speed_places_or_reports_only_changes_no_key(folder, override):
    assert keys(folder, override) == keys(folder)


def test_a_precision_that_follows_the_device_is_part_of_the_key_as_what_it_is(folder):
    automatic = "teachers.rec.precision=auto"
    assert keys(folder, automatic, "device=cpu") == keys(folder)
    of_the_gpu = keys(folder, automatic, "device=cuda")
    assert changed(keys(folder), of_the_gpu) == OF_REC
    assert of_the_gpu == keys(folder, "teachers.rec.precision=bfloat16")


def test_neither_the_place_nor_the_time_of_a_file_nor_the_name_of_the_configuration_is_part_of_a_key(folder, tmp_path):
    before = keys(folder)
    moved = tmp_path / "another" / "place"
    shutil.copytree(folder, moved)
    for path in moved.rglob("*"):
        os.utime(path, (1, 1))
    (moved / "pipeline.yaml").rename(moved / "other.yaml")
    (moved / "raw").rename(moved / "files")
    (moved / "encoder").rename(moved / "language")
    overrides = ("domains.tiny.path=files", "text.encoder=./language")
    assert keys(moved, *overrides, file="other.yaml") == before


# --- teachers that are trained


TRAINED = "teachers={{uni: {{kind: unisrec, checkpoint: teacher, adapt: {adapt}}}}}"
IDS = "teachers={{ids: {{kind: sasrec, train: {train}}}}}"


def adapted(folder, settings, *overrides):
    return plan_of(folder, TRAINED.format(adapt=settings), *overrides).adapted("uni", "tiny").key


@pytest.mark.parametrize(
    "settings",
    [
        "{mode: transductive}",
        "{freeze_encoder: true}",
        "{dropout: 0.4}",
        "{epochs: 7}",
        "{patience: 7}",
        "{batch_size: 7}",
        "{learning_rate: 0.1}",
        "{seed: 7}",
        "{precision: bfloat16}",
    ],
)
def test_each_setting_of_an_adaptation_changes_the_teachers_key(folder, settings):
    assert adapted(folder, settings) != adapted(folder, "{}")


@pytest.mark.parametrize("change", [one_title, one_weight_of("teacher/model.safetensors"), one_interaction_less])
def test_what_a_teacher_is_adapted_from_and_on_changes_its_key(folder, change):
    before = adapted(folder, "{}")
    change(folder)
    assert adapted(folder, "{}") != before


def test_how_many_folds_there_are_is_no_part_of_the_key_of_the_teacher_of_all_users(folder):
    assert adapted(folder, "{folds: 3}") == adapted(folder, "{}")


def train(plan, teacher, fold=None, content="weights"):
    """Put files in the place of a trained teacher; only their bytes matter here."""
    with plan.store.draft(plan.adapted(teacher, "tiny", fold)) as draft:
        draft.add("config.json", lambda path: path.write_text("{}"))
        draft.add("model.safetensors", lambda path: path.write_text(f"{content} of {fold}"))
        draft.commit()


def labels(folder, settings, content="weights"):
    """The key of the labels of a teacher that is trained on the domain."""
    shutil.rmtree(folder / "store", ignore_errors=True)
    plan = plan_of(folder, IDS.format(train=settings))
    with pytest.raises(Pending):
        plan.labels("ids", "tiny")
    for fold in (None, *plan.label_folds("ids")):
        train(plan, "ids", fold, content)
    return plan.labels("ids", "tiny").key


def test_labels_are_named_by_the_bytes_of_the_trained_teachers_and_by_their_folds(folder):
    found = [labels(folder, settings) for settings in ("{}", "{folds: 2}", "{folds: 3}")]
    found.append(labels(folder, "{}", "other weights"))
    found.append(labels(folder, "{folds: 2}", "other weights"))
    assert len(set(found)) == len(found)
    assert labels(folder, "{seed: 7}") == found[0], "the same bytes, however they came about"


# --- the store


def test_every_key_in_a_store_is_that_of_the_inputs_that_can_be_read_there(distilled):
    store = Store(distilled.store)
    seen = set()
    for kind in MAKERS:
        for artifact in store.all(kind):
            manifest = json.loads((artifact.path / MANIFEST).read_text(encoding="utf-8"))
            assert manifest["key"] == key_of(kind, manifest["inputs"])
            assert artifact.path.name.removeprefix("key=") == manifest["key"][:SHORT]
            seen.add(kind)
    assert seen >= {"corpus", "text", "labels", "runs"}


def test_the_inputs_in_the_store_are_those_that_the_plan_names(distilled, world):
    plan = plan_of(distilled.folder, "distill.epochs=3")
    addresses = [
        plan.corpus("tiny"),
        plan.text("tiny", plan.configuration.text),
        plan.labels("uni", "tiny"),
        plan.run(Run("small", ("tiny",), True)),
    ]
    for address in addresses:
        found = plan.store.find(address)
        assert found is not None
        assert found.inputs == json.loads(json.dumps(dict(address.inputs)))


def test_nothing_is_found_by_its_name_alone(distilled, make_workplace, tmp_path):
    place = make_workplace(tmp_path / "renamed", distilled.store)
    plan = plan_of(place.folder, "labels.top_k=5", "distill.epochs=3")
    wanted = plan.labels("uni", "tiny")
    place.labels.rename(place.labels.with_name(wanted.directory.name))
    assert plan.store.folder(wanted).is_dir()
    assert plan.store.find(wanted) is None
    with pytest.raises(UserError, match="the store has only damaged labels of teacher uni"):
        plan.ready_labels("tiny")
    run = plan.run(Run("small", ("tiny",), True))
    (other, *_) = plan.store.all("runs")
    other.path.rename(other.path.with_name(run.directory.name))
    assert plan.store.find(run) is None
    assert plan.store.with_key("runs", run.key) is None
