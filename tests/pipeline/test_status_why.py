"""`ckd status --why`: which field differs from the nearest artifact, however deep, in the configuration's words."""

import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ckd.storage.files import sha256_file

NEW = "nothing of this kind in the store"
CORPUS, TEXT, PLAIN, TAUGHT = (
    "corpus of tiny",
    "text of tiny",
    "run of small, tiny, plain",
    "run of small, tiny, distilled",
)
UNI, IDS, REC = (f"labels of {name}, tiny" for name in ("uni", "ids", "rec"))
IDS_REC, IDS_UNI, REC_UNI = (f"agreement of {pair}, tiny" for pair in ("ids and rec", "ids and uni", "rec and uni"))


def why(ckd, place, *settings):
    """``{what: [line]}`` below the table."""
    arguments = [word for setting in settings for word in ("--set", setting)]
    code, lines, error = ckd(place.folder, "status", "--why", *arguments)
    assert code == 0, error
    found = {}
    for line in lines[lines.index("") :] if "" in lines else []:
        if line.startswith("  "):
            found[next(reversed(found))].append(line.strip())
        elif line:
            found[line] = []
    return found


def changed_raw(world, folder, name, change):
    """Copy the raw files with one table changed; return the line that says so."""
    shutil.copytree(world.raw, folder)
    path = folder / f"{name}.parquet"
    columns = pq.read_table(path).to_pydict()
    change(columns)
    pq.write_table(pa.table(columns, schema=pq.read_schema(path)), path)
    old, new = (sha256_file(raw / path.name)[:8] for raw in (world.raw, folder))
    return f"domains.tiny.path ({name}): {old} -> {new}"


def test_where_all_is_there_nothing_is_said(made_once, ckd):
    assert why(ckd, made_once) == {}


@pytest.mark.parametrize(
    ("setting", "line", "concerned"),
    [
        ("labels.top_k=5", "labels.top_k: 7 -> 5", (UNI, IDS, REC, IDS_REC, TAUGHT)),
        ("labels.precision=bfloat16", "labels.precision: fixed -> bfloat16", (UNI, IDS, REC, TAUGHT)),
        ("text.max_tokens=9", "text.max_tokens: 12 -> 9", (TEXT, UNI, IDS_UNI, REC_UNI, TAUGHT)),
        ("domains.tiny.k_core=2", "domains.tiny.k_core: 1 -> 2", (CORPUS, TEXT, UNI, REC, PLAIN)),
        ("seed=3", "seed: 0 -> 3", (PLAIN, TAUGHT)),
        ("evaluate.mask_history=true", "evaluate.mask_history: false -> true", (PLAIN, TAUGHT)),
        ("distill.temperature=2", "distill.temperature: 1 -> 2", (TAUGHT,)),
        ("students.small.hidden=4", "students.small.hidden: 8 -> 4", (PLAIN, TAUGHT)),
    ],
)
def test_a_changed_setting_is_named_wherever_it_matters_and_nothing_else_is(made_once, ckd, setting, line, concerned):
    found = why(ckd, made_once, setting)
    for what in concerned:
        assert found[what] == [line]
    assert {line for lines in found.values() for line in lines if "not trained yet" not in line} == {line}


def test_settings_that_change_together_are_a_line_each(made_once, ckd):
    found = why(ckd, made_once, "labels.top_k=5", "text.max_tokens=9", "seed=3")
    assert found[UNI] == ["text.max_tokens: 12 -> 9", "labels.top_k: 7 -> 5"]
    assert found[TAUGHT] == ["labels.top_k: 7 -> 5", "text.max_tokens: 12 -> 9", "seed: 0 -> 3"]
    assert found[PLAIN] == ["seed: 0 -> 3"]


def test_one_other_title_is_traced_to_the_file_of_items(made_once, ckd, world, tmp_path):
    def rename(columns):
        columns["title"][0] += " of another kind"

    line = changed_raw(world, tmp_path / "raw", "items", rename)
    found = why(ckd, made_once, f"domains.tiny.path={tmp_path / 'raw'}")
    for what in (CORPUS, TEXT, UNI, REC, PLAIN, "teacher of ids, adapted to tiny"):
        assert found[what] == [line]
    assert "is not trained yet" in found[TAUGHT][0]


def test_one_other_interaction_is_traced_to_the_file_of_interactions(made_once, ckd, world, tmp_path):
    def move(columns):
        columns["timestamp"][0] -= 1

    line = changed_raw(world, tmp_path / "raw", "interactions", move)
    found = why(ckd, made_once, f"domains.tiny.path={tmp_path / 'raw'}")
    for what in (CORPUS, TEXT, UNI, REC, PLAIN):
        assert found[what] == [line]


def test_other_weights_of_a_frozen_teacher_are_named_by_their_digests(made_once, ckd, world, make_teacher, tmp_path):
    other = make_teacher(tmp_path / "other", world.text.encoder, seed=6)
    old, new = (sha256_file(folder / "model.safetensors")[:8] for folder in (world.teacher, other))
    found = why(ckd, made_once, f"teachers.uni.checkpoint={other}")
    line = f"teachers.uni (model.safetensors): {old} -> {new}"
    assert found == {what: [line] for what in (UNI, IDS_UNI, REC_UNI, TAUGHT)}


def test_a_teacher_that_ckd_trains_is_traced_to_its_settings_also_from_its_labels(kept, ckd):
    setting = "teachers.ids.train.seed=1"
    line = "teachers.ids.train.seed: 0 -> 1"
    found = why(ckd, kept, setting)
    assert found["teacher of ids, adapted to tiny"] == [line]
    assert found["teacher of ids, adapted to tiny, fold 2 of 2"] == [line]
    assert "is not trained yet" in found[IDS][0]
    assert ckd(kept.folder, "pretrain", "--set", setting)[0] == 0
    found = why(ckd, kept, setting)
    assert found == {what: [line] for what in (IDS, IDS_REC, IDS_UNI, TAUGHT)}


def test_where_what_it_was_made_from_is_gone_that_is_said(made_once, make_workplace, tmp_path, ckd):
    place = make_workplace(tmp_path / "gone", made_once.store)
    shutil.copy(made_once.folder / "pipeline.yaml", place.folder)
    old = next(place.store.glob("corpus/*"))
    shutil.rmtree(old)
    found = why(ckd, place, "domains.tiny.k_core=2")
    assert found[CORPUS] == [NEW]
    (line,) = found[REC]
    assert re.fullmatch(
        rf"corpus of tiny: {old.name[:8]} -> [0-9a-f]{{8}} \(the stored one is no longer there, .*\)", line
    )


def test_without_anything_of_its_kind_there_is_nothing_to_compare_with(workplace, ckd):
    found = why(ckd, workplace)
    assert found == {UNI: [NEW], PLAIN: [NEW], TAUGHT: [NEW]}


def test_the_same_labels_under_another_name_are_told(made_once, ckd, make_workplace, tmp_path):
    place = make_workplace(tmp_path / "renamed", made_once.store)
    text = (made_once.folder / "pipeline.yaml").read_text().replace("  uni: {", "  renamed: {")
    (place.folder / "pipeline.yaml").write_text(text)
    (line,) = why(ckd, place)["labels of renamed, tiny"]
    assert line.startswith("the same labels are in the store under teacher=uni, domain=tiny: ")


def test_damage_is_no_difference(kept, ckd):
    next(kept.store.glob("labels/teacher=uni/*/key=*/part-00000.parquet")).unlink()
    assert why(ckd, kept) == {UNI: ["the stored one is damaged; `ckd verify` says what is wrong with it"]}


def test_another_domain_is_not_the_nearest_thing(kept, ckd, world, tmp_path):
    """Its corpus is another one, not the same made otherwise."""

    def rename(columns):
        columns["title"][0] += " of another kind"

    changed_raw(world, tmp_path / "raw", "items", rename)
    text = (kept.folder / "pipeline.yaml").read_text()
    more = f"domains:\n  more: {{path: {tmp_path / 'raw'}, k_core: 1}}\n"
    (kept.folder / "pipeline.yaml").write_text(text.replace("domains:\n", more))
    found = why(ckd, kept)
    for what in ("corpus of more", "text of more", "teacher of ids, adapted to more", "labels of uni, more"):
        assert found[what] == [NEW]
    assert CORPUS not in found
