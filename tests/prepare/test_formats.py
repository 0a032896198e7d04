"""Which files a domain is made of, for each format: how they are found, and what they do to the key."""

import os
import shutil
from pathlib import Path

import pytest

from ckd.stages.prepare.address import corpus_address
from ckd.stages.prepare.settings import DomainSettings
from ckd.stages.tables.jsonl import read
from ckd.storage.errors import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures"
FILES = {
    "unisrec": ("train.inter", "valid.inter", "test.inter", "text", "item2index", "user2index"),
    "recformer": ("train.json", "val.json", "test.json", "smap.json", "umap.json", "meta_data.json"),
}
OPTIONAL = ("item2index", "user2index")


def key(path, kind, **values):
    return corpus_address(DomainSettings(path=path, format=kind, **values)).key


def file_of(folder, role):
    return next(path for path in folder.iterdir() if path.name in (role, f"tiny.{role}"))


@pytest.fixture
def refusal():
    def find(path, kind):
        with pytest.raises(UserError) as caught:
            key(path, kind)
        assert "\n" not in str(caught.value)
        return str(caught.value).replace(f"{path}/", "").replace(str(path), "FOLDER")

    return find


def test_the_key_of_tables_holds_what_it_always_held(folder):
    path = folder("csv")
    inputs = dict(corpus_address(DomainSettings(path=path, columns={"title": "brand"})).inputs)
    assert inputs["items"].keys() == inputs["interactions"].keys() == {"sha256", "reader"}
    del inputs["items"], inputs["interactions"]
    assert inputs == {"columns": {"title": "brand"}, "k_core": 5, "format": 1}
    samples = Path(__file__).parents[2] / "samples"
    keys = [key(samples / name, "tables")[:16] for name in ("scientific", "office")]
    assert keys == ["2aa3593bc7321a09", "28f4a0f76a087457"], "the stores that people have would be made again"


@pytest.mark.parametrize(("kind", "role"), [(kind, role) for kind, roles in FILES.items() for role in roles])
def test_every_file_is_in_the_key(authors, kind, role):
    path = authors(kind)
    before = key(path, kind)
    file = file_of(path, role)
    os.utime(file, (1, 1))
    assert key(path, kind) == before
    with file.open("a") as stream:
        stream.write(" ")
    assert key(path, kind) != before
    if role in OPTIONAL:
        after = key(path, kind)
        file.unlink()
        assert key(path, kind) not in (before, after)


@pytest.mark.parametrize("kind", FILES)
def test_the_key_depends_on_the_rules_and_not_on_names(authors, kind):
    path = authors(kind)
    before = key(path, kind)
    assert key(path, kind, k_core=1) == before, "it holds the number, given or not"
    assert key(path, kind, k_core=5) != before
    assert key(path, kind, text_vectors=path / "tiny.feat1CLS") == before, "they are no part of the corpus"
    for file in list(path.glob("tiny.*")):
        file.rename(file.with_name(file.name.replace("tiny.", "a.b.")))
    (path / "README").touch()
    assert key(path, kind) == before


@pytest.mark.parametrize(("kind", "role"), [(kind, role) for kind, roles in FILES.items() for role in roles])
def test_a_missing_file_is_named(authors, refusal, kind, role):
    path = authors(kind)
    file_of(path, role).unlink()
    if role in OPTIONAL:
        assert key(path, kind)
        return
    expected = {
        "unisrec": "; format: unisrec needs D.train.inter, D.valid.inter, D.test.inter, D.text",
        "recformer": "; format: recformer needs train.json, val.json, test.json, smap.json, umap.json, meta_data.json",
    }
    name = "*.train.inter" if role == "train.inter" else file_of(Path(FIXTURES / kind / "data"), role).name
    assert refusal(path, kind).startswith(f"FOLDER has no {name}, only ")
    assert refusal(path, kind).endswith(expected[kind])


@pytest.mark.parametrize("kind", FILES)
def test_a_missing_folder(tmp_path, refusal, kind):
    text = refusal(tmp_path / "gone", kind)
    assert text.startswith("the data folder FOLDER does not exist; set the domain's path to the folder that holds ")
    assert FILES[kind][0] in text


def test_two_data_sets_in_one_folder(authors, refusal):
    path = authors("unisrec")
    shutil.copy(path / "tiny.train.inter", path / "other.train.inter")
    assert refusal(path, "unisrec").startswith(
        "FOLDER holds other.train.inter, tiny.train.inter; format: unisrec needs"
    )
    assert refusal(path, "unisrec").endswith("of one data set: give each a folder of its own")


def test_domains_that_were_merged_for_pretraining(tmp_path, refusal):
    path = Path(shutil.copytree(FIXTURES / "unisrec" / "data_pretrain", tmp_path / "merged"))
    assert refusal(path, "unisrec") == (
        "TM.pt_datasets says that several domains were merged for pre-training; ckd takes each by itself: set the path "
        "of each, under sources, to the folder with its own D.train.inter, D.text"
    )


@pytest.mark.parametrize(("kind", "mark"), [("unisrec", "*.train.inter"), ("recformer", "smap.json")])
def test_a_folder_of_another_format_is_recognised(authors, folder, refusal, kind, mark):
    path = authors(kind)
    assert refusal(path, "tables").endswith(f"; for {mark}, set domains.<name>.format: {kind}")
    other = next(name for name in FILES if name != kind)
    assert refusal(path, other).endswith(f"; for {mark}, set domains.<name>.format: {kind}")
    assert refusal(folder("csv"), kind).endswith("; for interactions.*, set domains.<name>.format: tables")


def test_tables_beside_other_files_are_read_as_tables(authors, folder):
    path, tables = authors("recformer"), folder("csv")
    before = key(tables, "tables")
    for file in tables.iterdir():
        shutil.copy(file, path)
    assert key(path, "tables") == before


def test_settings_that_do_not_fit_together():
    with pytest.raises(ValueError, match="columns has no effect with format unisrec, whose files have fixed names"):
        DomainSettings(path="x", format="unisrec", columns={"item_id": "asin"})
    with pytest.raises(ValueError, match="augmented_text_vectors needs text_vectors"):
        DomainSettings(path="x", augmented_text_vectors="y.feat2CLS")


@pytest.mark.parametrize(("kind", "k_core"), [("tables", 5), ("unisrec", 1), ("recformer", 1)])
def test_what_the_authors_filtered_is_not_filtered_again_unless_it_is_asked_for(kind, k_core):
    assert DomainSettings(path="x", format=kind).k_core == k_core
    assert DomainSettings(path="x", format=kind, k_core=3).k_core == 3


def test_dates_in_a_list_of_json_are_left_as_they_are_written(tmp_path):
    (tmp_path / "items.jsonl").write_text(
        '{"item_id": "a", "seen": "2019-01-01", "on": ["2019-01-01", "2020-05-05"], "of": {"day": "2019-01-01"}}\n'
        '{"item_id": "b", "seen": "2019-01-02", "on": [], "of": null}\n'
    )
    rows = read(tmp_path / "items.jsonl").to_pylist()
    assert [row["seen"] for row in rows] == ["2019-01-01", "2019-01-02"]
    assert rows[0]["on"] == ["2019-01-01", "2020-05-05"]
    assert rows[0]["of"] == {"day": "2019-01-01"}
