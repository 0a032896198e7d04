"""Item vectors made elsewhere: every form gives each item its own vector, and every misfit is one clear line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.prepare.prepare import prepare_domain
from ckd.stages.prepare.settings import DomainSettings
from ckd.stages.text import brought
from ckd.stages.text.brought import bring_vectors
from ckd.stages.vector_files import vector_files
from ckd.stages.vectors import read_item_vectors
from ckd.storage.corpus import Corpus, read_corpus
from ckd.storage.errors import UserError
from ckd.storage.store import Store
from ckd.storage.vectors import read_vectors

UNISREC = Path(__file__).parents[1] / "fixtures" / "unisrec"
IDS = ["b", "007", "ä", "a"]
VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3) / 8


def write_parquet(folder, ids=IDS, vectors=VECTORS):
    path = folder / "x.parquet"
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(vectors).ravel()), np.asarray(vectors).shape[1])
    pq.write_table(pa.table({"item_id": ids, "vector": lists}), path, row_group_size=3)
    return path


def write_numpy(folder, ids=IDS, vectors=VECTORS):
    np.save(folder / "x.npy", vectors)
    if ids is not None:
        (folder / "x.ids.json").write_text(json.dumps(ids))
    return folder / "x.npy"


def write_features(folder, ids=IDS, vectors=VECTORS):
    vectors.astype("<f4").tofile(folder / "x.feat1CLS")
    if ids is not None:
        lines = [f"{name}\t{row}\n" for row, name in enumerate(ids)]
        (folder / "x.item2index").write_text("".join(reversed(lines)), encoding="utf-8")
    return folder / "x.feat1CLS"


WRITERS = {"parquet": write_parquet, "npy": write_numpy, "features": write_features}
MATRICES = {"npy": write_numpy, "features": write_features}


@pytest.fixture
def refusal(tmp_path):
    def read(path, ids=("a", "b")):
        with pytest.raises(UserError) as caught:
            read_item_vectors(path, pa.array(ids))
        assert "\n" not in str(caught.value)
        return str(caught.value).replace(f"{tmp_path}/", "").replace(str(tmp_path), "FOLDER")

    return read


# --- every form


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_items_get_their_own_vectors_in_the_order_asked_for(tmp_path, write):
    path = write(tmp_path)
    for ids in (["a", "b", "ä", "007"], ["ä"]):
        found = read_item_vectors(path, pa.chunked_array([pa.array(ids[:1]), pa.array(ids[1:], pa.string())]))
        assert found.dtype == np.float32
        assert found.tolist() == VECTORS[[IDS.index(name) for name in ids]].tolist()


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_whole_numbers_and_their_decimal_strings_are_the_same_item(tmp_path, write):
    path = write(tmp_path, ids=["12", "3", "0", "7"])
    assert read_item_vectors(path, pa.array([0, 12])).tolist() == VECTORS[[2, 0]].tolist()
    if write is not write_features:
        path = write(tmp_path, ids=[12, 3, 0, 7])
        assert read_item_vectors(path, pa.array(["3", "7"])).tolist() == VECTORS[[1, 3]].tolist()


@pytest.mark.parametrize("write", MATRICES.values(), ids=MATRICES)
def test_without_names_of_rows_the_item_ids_are_the_rows(tmp_path, write):
    path = write(tmp_path, ids=None)
    for ids in (pa.array([3, 1, 0, 2]), pa.array(["3", "1", "0", "2"])):
        assert read_item_vectors(path, ids).tolist() == VECTORS[[3, 1, 0, 2]].tolist()


@pytest.mark.parametrize("kind", [np.float16, np.float64, ">f4"])
def test_other_floating_point_numbers_become_float32(tmp_path, kind):
    for path in (
        write_numpy(tmp_path, vectors=VECTORS.astype(kind)),
        write_parquet(tmp_path, vectors=VECTORS.astype(np.dtype(kind).newbyteorder("="))),
    ):
        found = read_item_vectors(path, pa.array(IDS))
        assert found.dtype == np.dtype("=f4")
        assert found.tolist() == VECTORS.tolist()


def test_matrices_of_either_order_in_memory(tmp_path):
    path = write_numpy(tmp_path, vectors=np.asfortranarray(VECTORS))
    assert read_item_vectors(path, pa.array(IDS)).tolist() == VECTORS.tolist()


def test_lists_of_any_arrow_type(tmp_path):
    for kind in (pa.list_(pa.float32()), pa.large_list(pa.float64())):
        pq.write_table(pa.table({"vector": pa.array(VECTORS.tolist(), kind), "item_id": IDS}), tmp_path / "x.parquet")
        assert read_item_vectors(tmp_path / "x.parquet", pa.array(["ä"])).tolist() == VECTORS[[2]].tolist()


@given(st.permutations(range(6)), st.lists(st.integers(0, 5), unique=True, min_size=1))
def test_every_form_says_the_same(tmp_path_factory, order, chosen):
    folder = tmp_path_factory.mktemp("any")
    ids, vectors = [f"i{row}" for row in order], np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    wanted = pa.array([ids[row] for row in chosen])
    for write in WRITERS.values():
        for stale in folder.iterdir():
            stale.unlink()
        assert np.array_equal(read_item_vectors(write(folder, ids, vectors), wanted), vectors[chosen])


def test_the_vectors_of_unisrecs_authors_are_those_that_their_model_holds(tmp_path):
    domain = DomainSettings(path=UNISREC / "data", format="unisrec")
    corpus = read_corpus(prepare_domain(Store(tmp_path / "store"), "domains.tiny", domain))
    found = read_item_vectors(UNISREC / "data" / "tiny.feat1CLS", corpus.items["item_id"])
    table = np.load(UNISREC / "plm_embeddings.npy")
    raw_of = json.loads((UNISREC / "item_id_map.json").read_text())["internal_to_raw"]
    asins = dict(reversed(line.split("\t")) for line in (UNISREC / "data" / "tiny.item2index").read_text().splitlines())
    row_of = {asins[str(raw)]: row for row, raw in enumerate(raw_of) if raw is not None}
    assert np.array_equal(found, table[[row_of[item] for item in corpus.items["item_id"].to_pylist()]])


# --- which files


def test_the_files_that_determine_the_vectors(tmp_path):
    assert vector_files(write_parquet(tmp_path)) == (tmp_path / "x.parquet",)
    assert vector_files(write_numpy(tmp_path, ids=None)) == (tmp_path / "x.npy",)
    assert vector_files(write_numpy(tmp_path)) == (tmp_path / "x.npy", tmp_path / "x.ids.json")
    (tmp_path / "x.ids.json").unlink()
    features = write_features(tmp_path)
    assert vector_files(features) == (features, tmp_path / "x.item2index")
    assert vector_files(shutil.copy(features, tmp_path / "x.feat2CLS")) == (
        tmp_path / "x.feat2CLS",
        tmp_path / "x.item2index",
    )


def test_two_files_that_name_the_rows(tmp_path, refusal):
    write_features(tmp_path)
    assert (
        refusal(write_numpy(tmp_path)) == "x.item2index and x.ids.json both name the rows of x.npy; remove one of them"
    )


def test_no_file_or_one_of_an_unknown_form(tmp_path, refusal):
    assert refusal(tmp_path / "x.npy") == (
        "the file of item vectors x.npy does not exist; correct the path in the configuration"
    )
    (tmp_path / "y.npy").mkdir()
    assert "y.npy is not a file" in refusal(tmp_path / "y.npy")
    assert refusal(tmp_path / "x.pt") == (
        "x.pt: item vectors are read from .parquet, .npy and .feat1CLS or .feat2CLS files, not from .pt"
    )
    assert refusal(tmp_path / "x").endswith("not from a file without ending")


# --- misfits of any form


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_items_without_a_vector(tmp_path, refusal, write):
    path = write(tmp_path)
    assert refusal(path, ["a", "gone", "b", "lost"]) == (
        f"{path.name} has no vector of 2 of the domain's 4 items (first: 'gone'); "
        "add them, or check that the item ids are the same"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_numbers_that_are_none(tmp_path, refusal, write, value):
    vectors = VECTORS.copy()
    vectors[0, 1] = value
    path = write(tmp_path, vectors=vectors)
    assert refusal(path) == (
        f"{path.name}: the vector of item 'b' holds NaN, infinity or a number too large for float32, as do 1 of 2; "
        "make the vectors again"
    )
    assert read_item_vectors(path, pa.array(["a"])).tolist() == VECTORS[[3]].tolist(), "nobody asked for item b"


@pytest.mark.parametrize("write", [write_parquet, write_numpy])
def test_numbers_too_large_for_float32(tmp_path, refusal, write):
    path = write(tmp_path, vectors=VECTORS.astype(np.float64) * 1e39)
    assert "too large for float32" in refusal(path)


@pytest.mark.parametrize("write", [write_parquet, write_numpy])
def test_an_item_that_is_there_twice(tmp_path, refusal, write):
    write(tmp_path, ids=["a", "b", "c", "a"])
    path = next(path for path in tmp_path.iterdir() if path.suffix != ".npy")
    assert refusal(next(tmp_path.glob("x.[np]*"))) == f"{path.name} has item 'a' more than once; keep one of its rows"


# --- features without header


@pytest.mark.parametrize("size", [0, 47, 44, 52])
def test_a_size_that_is_no_multiple_of_the_rows(tmp_path, refusal, size):
    path = write_features(tmp_path)
    path.write_bytes((path.read_bytes() * 2)[:size])
    assert refusal(path) == (
        f"x.feat1CLS holds {size} bytes, no multiple of 4 rows of float32; is it whole, and of these items?"
    )


def test_an_index_with_a_gap(tmp_path, refusal):
    path = write_features(tmp_path)
    (tmp_path / "x.item2index").write_text("a\t0\nb\t2\n")
    assert refusal(path) == "x.item2index has 2 lines and none for row 1; rows are numbered from 0, without gaps"


@pytest.mark.parametrize("ids", [["a", "b"], [0, 2], [1, 2], ["0", "01"]])
def test_features_of_which_nothing_names_the_rows(tmp_path, refusal, ids):
    path = write_features(tmp_path, ids=None)
    assert refusal(path, ids) == (
        "x.feat1CLS: nothing names its rows, and the item ids are not the numbers 0 to 1; put x.item2index or "
        "x.ids.json beside it"
    )


# --- matrices of numpy


@pytest.mark.parametrize("ids", [IDS[:3], [*IDS, "c"]])
def test_more_or_fewer_names_than_rows(tmp_path, refusal, ids):
    text = refusal(write_numpy(tmp_path, ids=ids))
    assert text == f"x.npy holds 4 rows, but x.ids.json names {len(ids)}; they must be as many"


@pytest.mark.parametrize("ids", [{"a": 0}, [1.5], [None], [True], "a"])
def test_names_of_rows_that_are_no_list(tmp_path, refusal, ids):
    assert refusal(write_numpy(tmp_path, ids=ids)) == (
        "x.ids.json must hold one list of item ids, strings or whole numbers, and nothing else"
    )
    (tmp_path / "x.ids.json").write_text('["a"')
    assert refusal(tmp_path / "x.npy").startswith("x.ids.json cannot be read as JSON (")


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (VECTORS[0], "float32 [3]"),
        (VECTORS[None], "float32 [1x4x3]"),
        (np.float32(1), "float32 [scalar]"),
        (VECTORS.astype(np.int64), "int64 [4x3]"),
        (VECTORS[:, :0], "float32 [4x0]"),
    ],
)
def test_arrays_that_are_no_matrix_of_numbers(tmp_path, refusal, array, shape):
    assert refusal(write_numpy(tmp_path, vectors=array)) == (
        f"x.npy holds {shape}; a matrix of floating-point numbers, a row an item, is needed"
    )


def test_a_file_that_would_run_code_or_is_torn_is_not_opened(tmp_path, refusal):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert refusal(tmp_path / "x.npy").startswith("x.npy cannot be read as a numpy array (")
    path = write_numpy(tmp_path)
    path.write_bytes(path.read_bytes()[:-4])
    assert refusal(path).startswith("x.npy cannot be read as a numpy array (")
    path.write_bytes(b"")
    assert refusal(path).startswith("x.npy cannot be read as a numpy array (")


# --- Parquet


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"item": IDS, "vector": VECTORS.tolist()}, "must have one column 'item_id'; it has item, vector"),
        ({"item_id": IDS, "v": VECTORS.tolist()}, "must have one column 'vector'; it has item_id, v"),
        ({"item_id": ["a", None], "vector": [[1.0], [2.0]]}, ", row 2: no item_id; remove the row or fill it in"),
        ({"item_id": ["a", "b"], "vector": [[1.0], None]}, ", row 2: no vector; remove the row or fill it in"),
        ({"item_id": [1.5], "vector": [[1.0]]}, ": column 'item_id' has type double; item ids are strings or"),
        ({"item_id": ["a"], "vector": [[1]]}, ": column 'vector' has type list<element: int64>; lists of floating"),
        ({"item_id": ["a"], "vector": [1.0]}, ": column 'vector' has type double; lists of floating-point"),
        (
            {"item_id": ["a", "b", "c"], "vector": [[1.0, 2.0], [3.0, 4.0], [5.0]]},
            ", row 3: a vector of 1 numbers, the first has 2; make them equal",
        ),
        ({"item_id": ["a"], "vector": pa.array([[]], pa.list_(pa.float32()))}, "holds no numbers; a vector for"),
        (
            {"item_id": pa.array([], pa.string()), "vector": pa.array([], pa.list_(pa.float32()))},
            "holds no numbers; a vector for each item is needed",
        ),
        ({"item_id": ["a", "b"], "vector": [[1.0], [None]]}, ": the vector of item 'b' holds NaN, infinity or"),
    ],
)
def test_tables_that_hold_no_vectors(tmp_path, refusal, columns, text):
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert refusal(tmp_path / "x.parquet").removeprefix("x.parquet").lstrip(" ").startswith(text)


def test_torn_parquet(tmp_path, refusal):
    path = write_parquet(tmp_path)
    path.write_bytes(path.read_bytes()[:-8])
    assert refusal(path).startswith("x.parquet cannot be read as Parquet (")


def test_a_file_that_changes_while_it_is_read_is_kept_under_no_key(tmp_path, monkeypatch):
    path, store = write_numpy(tmp_path), Store(tmp_path / "store")
    items = pa.table({"item_id": pa.array(IDS)})
    corpus = Corpus("key", items, pa.array([]), np.zeros(1, np.int64), np.empty(0, np.int32))

    def replaced_meanwhile(*arguments):
        found = read_item_vectors(*arguments)
        write_numpy(tmp_path, vectors=VECTORS + 1)
        return found

    monkeypatch.setattr(brought, "read_item_vectors", replaced_meanwhile)
    with pytest.raises(UserError, match="changed while it was read; run the same command again"):
        bring_vectors(store, corpus, path)
    assert store.all("text") == []
    monkeypatch.undo()
    assert (read_vectors(bring_vectors(store, corpus, path)) == VECTORS + 1).all()
