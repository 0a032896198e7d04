"""Real small data written as real files in every format."""

import csv
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ckd.storage.store import Store

Columns = Mapping[str, Sequence[Any]]

ITEMS: Columns = {
    "item_id": ["b", "a", "007", "NA", "ä"],
    "title": ["Tape, wide", "Glue\nstick", 'A 3" "nail"', "Not applicable", None],
    "brand": ["Acme", None, "  ", "Acme", "Ö"],
    "categories": ["Office, Tape", "Office", None, "Office", None],
    "description": [None, None, None, "2014-05-01", "x"],
}
INTERACTIONS: Columns = {
    "user_id": ["u2", "u1", "u2", "u1", "u2", "u1", "u2", "u3"],
    "item_id": ["a", "b", "b", "007", "007", "a", "NA", "a"],
    "timestamp": [30, 10, 10, 20, 20, 5, 10, 1],
}


def write_parquet(path: Path, columns: Columns) -> None:
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), path)


def write_delimited(path: Path, columns: Columns) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(columns)
        writer.writerows(
            ["" if value is None else value for value in row] for row in zip(*columns.values(), strict=True)
        )


def write_jsonl(path: Path, columns: Columns) -> None:
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


WRITERS: dict[str, Callable[[Path, Columns], None]] = {
    "parquet": write_parquet,
    "csv": write_delimited,
    "tsv": write_delimited,
    "jsonl": write_jsonl,
}

Writer = Callable[..., Path]

FIXTURES = Path(__file__).parents[1] / "fixtures"
AUTHORS = {"unisrec": FIXTURES / "unisrec" / "data", "recformer": FIXTURES / "recformer" / "data"}
"""Data sets that the teachers' authors' own code wrote, by format."""


@pytest.fixture
def items() -> dict[str, list[Any]]:
    return {name: list(values) for name, values in ITEMS.items()}


@pytest.fixture
def interactions() -> dict[str, list[Any]]:
    return {name: list(values) for name, values in INTERACTIONS.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Writer:
    """A function that writes a domain's raw files in one format and returns their folder."""

    def write(kind: str = "parquet", items: Columns = ITEMS, interactions: Columns = INTERACTIONS) -> Path:
        path = tmp_path / f"raw-{len(list(tmp_path.iterdir()))}"
        path.mkdir()
        WRITERS[kind](path / f"items.{kind}", items)
        WRITERS[kind](path / f"interactions.{kind}", interactions)
        return path

    return write


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def authors(tmp_path: Path) -> Writer:
    """A function that copies the authors' files of one format to a folder of its own and returns it."""

    def copy(kind: str) -> Path:
        path = tmp_path / f"{kind}-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(AUTHORS[kind], path)
        return path

    return copy
