"""Ranked lists in every format: the same lists, whatever file they come in and whatever the order of its rows."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckd.stages.precompute.lists import complete
from ckd.stages.teachers.contract import Opening, RankedLists
from ckd.stages.teachers.scores import Settings, open_teacher
from ckd.storage.corpus import Corpus

LISTS: dict[tuple[str, int], tuple[list[str], list[float]]] = {
    ("ann", 1): (["b", "d"], [-0.5, -1.5]),
    ("ann", 2): (["a", "c", "b"], [-0.25, -2.0, -3.0]),
    ("ann", 3): (["e"], [-1.0]),
    ("bob", 1): (["c", "a", "e"], [-1.0, -1.0, -4.0]),
    ("bob", 2): (["d", "a"], [-0.125, -6.0]),
}
SCORED = {"scores": "logprob"}


def corpus_of(users: Any = ("ann", "bob"), items: Any = ("a", "b", "c", "d", "e")) -> Corpus:
    """Five items; the first user has three positions, the second two."""
    catalogue = pa.table({"item": np.arange(len(items)), "item_id": pa.array(items)})
    return Corpus("key", catalogue, pa.array(users), np.array([0, 4, 7]), np.array([0, 1, 2, 3, 1, 2, 0], np.int32))


def opened(files: dict[str, Path], corpus: Corpus | None = None, **values: Any) -> RankedLists:
    settings = Settings.model_validate(
        {"kind": "scores", **{role: str(path) for role, path in files.items()}, **values}
    )
    found = settings.files("d", "teachers.llm")
    return open_teacher(Opening(settings, found, corpus or corpus_of(), None, torch.device("cpu")))


def expected() -> list[dict[str, float]]:
    return [dict(zip(items, scores, strict=True)) for items, scores in LISTS.values()]


def named(lists: RankedLists, names: Any = "abcde") -> list[dict[Any, float]]:
    """The log-probability of each listed item, of each position."""
    return [
        {names[lists.items[at]]: float(lists.logprobs[at]) for at in range(*ends)}
        for ends in zip(lists.offsets[:-1].tolist(), lists.offsets[1:].tolist(), strict=True)
    ]


def wide_rows() -> list[dict[str, Any]]:
    return [
        {"user_id": user, "position": position, "items": items, "scores": scores}
        for (user, position), (items, scores) in LISTS.items()
    ]


def long_rows(*columns: str) -> list[dict[str, Any]]:
    rows = [
        {"user_id": user, "position": position, "item_id": item, "score": score, "rank": rank}
        for (user, position), (items, scores) in LISTS.items()
        for rank, (item, score) in enumerate(zip(items, scores, strict=True), start=1)
    ]
    return [{name: row[name] for name in ("user_id", "position", "item_id", *columns)} for row in rows]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def shuffled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[at] for at in np.random.default_rng(1).permutation(len(rows))]


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_one_list_a_row(tmp_path, suffix, mixed):
    rows = shuffled(wide_rows()) if mixed else wide_rows()
    assert named(opened({"path": write(tmp_path / f"lists.{suffix}", rows)}, **SCORED)) == expected()


@pytest.mark.parametrize("columns", [("score",), ("rank", "score")])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "jsonl"])
def test_one_listed_item_a_row(tmp_path, suffix, mixed, columns):
    rows = shuffled(long_rows(*columns)) if mixed else long_rows(*columns)
    assert named(opened({"path": write(tmp_path / f"lists.{suffix}", rows)}, **SCORED)) == expected()


@pytest.mark.parametrize("values", [{"scores": "logprob"}, {"scores": "logit"}, {"scores": "none"}])
def test_the_order_of_rows_changes_no_bit(tmp_path, values):
    plain, mixed = (
        opened({"path": write(tmp_path / f"{name}.csv", rows)}, **values)
        for name, rows in (
            ("plain", long_rows("rank", "score")),
            ("mixed", shuffled(long_rows("rank", "score"))),
        )
    )
    for one, other in zip(vars(complete(plain, 5)).values(), vars(complete(mixed, 5)).values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_fixed_size_lists_and_large_lists(tmp_path):
    rows = [row for row in wide_rows() if len(row["items"]) == 2]
    table = pa.Table.from_pylist(rows)
    for name, kinds in {
        "fixed": (pa.list_(pa.string(), 2), pa.list_(pa.float32(), 2)),
        "large": (pa.large_list(pa.large_string()), pa.large_list(pa.float64())),
    }.items():
        columns = {"items": table["items"].cast(kinds[0]), "scores": table["scores"].cast(kinds[1])}
        pq.write_table(
            table.select(["user_id", "position"])
            .append_column("items", columns["items"])
            .append_column("scores", columns["scores"]),
            tmp_path / f"{name}.parquet",
        )
        found = named(opened({"path": tmp_path / f"{name}.parquet"}, **SCORED))
        assert found == [expected()[0], {}, {}, {}, expected()[4]]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_identifiers_are_matched_whether_they_are_numbers_or_text(tmp_path, suffix):
    numbers = {"ann": 7, "bob": 12} | {name: 100 + code for code, name in enumerate("abcde")}
    rows = [
        {**row, "user_id": numbers[row["user_id"]], "item_id": numbers[row["item_id"]]} for row in long_rows("score")
    ]
    path = write(tmp_path / f"lists.{suffix}", rows)
    for kind in (int, str):
        corpus = corpus_of([kind(7), kind(12)], [kind(100 + code) for code in range(5)])
        assert named(opened({"path": path}, corpus, **SCORED)) == expected()


def test_domain_in_a_path_is_the_domains_name(tmp_path):
    write(tmp_path / "d.jsonl", wide_rows())
    assert named(opened({"path": tmp_path / "{domain}.jsonl"}, **SCORED)) == expected()


# --- what scores mean


def probabilities(lists: RankedLists) -> list[np.ndarray]:
    return [np.exp(part) for part in np.split(lists.logprobs, lists.offsets[1:-1])]


def test_logits_share_out_the_listed_mass_by_their_softmax(tmp_path):
    path = write(tmp_path / "lists.jsonl", wide_rows())
    found = probabilities(opened({"path": path}, scores="logit", listed_mass=0.95, temperature=2.0))
    for (_, scores), p in zip(LISTS.values(), found, strict=True):
        powers = np.exp(np.array(scores) / 2)
        np.testing.assert_allclose(p, 0.95 * powers / powers.sum(), rtol=1e-12)


def test_listed_logits_hold_more_where_else_an_unlisted_item_came_before_them(tmp_path):
    path = write(tmp_path / "lists.jsonl", wide_rows())
    found = probabilities(opened({"path": path}, scores="logit", listed_mass=0.5))
    last = np.exp(-6.0) / (np.exp(-0.125) + np.exp(-6.0))
    held = found[4].sum()
    np.testing.assert_allclose(found[4][1] / held, last)
    np.testing.assert_allclose(found[4][1], 2 * (1 - held) / 3)


def test_huge_logits_do_not_overflow(tmp_path):
    rows = [{**row, "scores": [1e4 - 9e3 * n for n in range(len(row["items"]))]} for row in wide_rows()]
    lists = opened({"path": write(tmp_path / "lists.jsonl", rows)}, scores="logit")
    assert np.isfinite(lists.logprobs).all()
    completed = complete(lists, 5)
    assert np.isfinite(completed.logprobs).all()
    assert np.isfinite(completed.entropy).all()


def test_without_scores_probability_falls_with_the_logarithm_of_the_rank(tmp_path):
    rows = [{name: row[name] for name in ("user_id", "position", "items")} for row in wide_rows()]
    found = probabilities(opened({"path": write(tmp_path / "lists.parquet", rows)}, scores="none", listed_mass=0.95))
    for (items, _), p in zip(LISTS.values(), found, strict=True):
        weight = 1 / np.log2(1 + np.arange(1, len(items) + 1))
        np.testing.assert_allclose(p, 0.95 * weight / weight.sum(), rtol=1e-12)


def test_scores_that_are_there_are_not_read_if_only_the_order_counts(tmp_path):
    rows = [{**row, "scores": ["no", "number"]} for row in wide_rows()]
    opened({"path": write(tmp_path / "lists.jsonl", rows)}, scores="none")


@pytest.mark.parametrize("scores", ["none", "logit"])
@given(
    logits=st.lists(st.floats(-5, 5), min_size=1, max_size=40),
    unlisted=st.integers(0, 40),
    mass=st.floats(0.01, 0.99),
)
def test_no_unlisted_item_comes_before_a_listed_one(tmp_path_factory, scores, logits, unlisted, mass):
    length = len(logits)
    n, values = length + unlisted, sorted(logits, reverse=True)
    rows = [{"user_id": "ann", "position": 1, "items": list(range(length)), "scores": values}]
    path = write(tmp_path_factory.mktemp("lists") / "lists.jsonl", rows)
    lists = opened({"path": path}, corpus_of(items=range(n)), scores=scores, listed_mass=mass)
    first = lists.logprobs
    assert (np.diff(first) <= 0).all()
    held = np.exp(first).sum()
    assert held >= (mass if unlisted else 1) - 1e-9
    assert held <= 1 + 1e-9
    if unlisted:
        assert np.exp(first[-1]) > (1 - held) / unlisted


# --- the files of DLLM2Rec


ROWS = [("bob", 1), ("ann", 2), ("ann", 1)]
RANKING = [["c", "a"], ["a", "e"], ["b", "d"]]
CODES = {"a": 10, "b": 3, "c": 4, "d": 0, "e": 7}
DISTANCES = [[0.5, 1.25], [2.0, 2.0], [0.0, 9.5]]


@pytest.fixture
def dllm2rec(tmp_path):
    """The four files, the numbers as numpy.savetxt writes them."""
    np.savetxt(tmp_path / "myrank_train.txt", [[CODES[item] for item in row] for row in RANKING])
    np.savetxt(tmp_path / "confidence_train.txt", DISTANCES)
    write(tmp_path / "rows.csv", [{"user_id": user, "position": position} for user, position in ROWS])
    (tmp_path / "items.json").write_text(json.dumps(CODES))
    files = {"path": "myrank_train.txt", "positions": "rows.csv", "item_ids": "items.json"}
    return {role: tmp_path / name for role, name in files.items()}


def test_distances_are_raw_scores_of_the_other_sign(dllm2rec, tmp_path):
    files = {**dllm2rec, "confidence": tmp_path / "confidence_train.txt"}
    found = named(opened(files, format="dllm2rec", scores="logit", listed_mass=0.97, temperature=4.0))
    places = {("ann", 1): 0, ("ann", 2): 1, ("bob", 1): 3}
    assert [bool(position) for position in found] == [True, True, False, True, False]
    for key, items, distances in zip(ROWS, RANKING, DISTANCES, strict=True):
        weight = np.exp(-np.array(distances) / 4)
        assert found[places[key]] == pytest.approx(dict(zip(items, np.log(0.97 * weight / weight.sum()), strict=True)))


def test_whole_numbers_and_a_list_of_item_ids_will_do(dllm2rec, tmp_path):
    dllm2rec["path"].write_text("2 0\n\n0   4\n1\t3\n")
    (tmp_path / "items.json").write_text(json.dumps(list("abcde")))
    found = named(opened(dllm2rec, format="dllm2rec", scores="none", listed_mass=0.7))
    assert [list(position) for position in found] == [["b", "d"], ["a", "e"], [], ["c", "a"], []]


# --- the key


def test_the_key_holds_the_files_and_what_makes_probabilities_of_scores(dllm2rec, tmp_path):
    settings = Settings(path="{domain}.csv", scores="none", listed_mass=0.5, temperature=3.0)
    assert settings.scoring(lambda: False) == {
        "format": "table",
        "scores": "none",
        "missing": "refuse",
        "listed_mass": 0.5,
    }
    assert "listed_mass" not in Settings(path="x", scores="logprob").scoring(lambda: False)
    assert Settings(path="x", scores="logit").scoring(lambda: False)["temperature"] == 1
    assert settings.text_settings(None) is None
    assert settings.pretraining() is None
    assert settings.adaptation() is None
    files = {**dllm2rec, "confidence": tmp_path / "confidence_train.txt"}
    chosen = Settings(format="dllm2rec", scores="logit", **{role: str(path) for role, path in files.items()})
    assert chosen.files("d", "teachers.llm") == files
