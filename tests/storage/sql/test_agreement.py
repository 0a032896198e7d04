"""The view ``agreement`` against plain loops over what was stored, position by position and pair by pair."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from ckd.storage.artifact import Artifact
from ckd.storage.corpus import SPLITS, Corpus, read_corpus, write_corpus
from ckd.storage.errors import DamagedArtifact
from ckd.storage.keys import Address
from ckd.storage.labels import LabelBlock, part_names, write_part
from ckd.storage.sql import AgreementSource, Contents, LabelSource, ask, open_views
from ckd.storage.sql.agreement import write_agreement
from ckd.storage.sql.views import AGREEMENT
from ckd.storage.store import Store

N_ITEMS, N_USERS = 40, 14
DEPTHS = {"Zed's": 12, "able": 25, "no [name] *": 7}
"""Teacher to the items that it stores; names come from users, and ``Z`` is before ``a``."""
LABELLED = {
    "tools": ["no [name] *", "able", "Zed's"],
    "it's odd": ["able", "Zed's"],
    "alone": ["able"],
}
Key = tuple[str, Any, int, str, str, str]


def commit_corpus(store: Store, domain: str, numeric: bool) -> Artifact:
    draw = np.random.default_rng(len(domain))
    lists = [draw.integers(0, N_ITEMS, length).astype(np.int32) for length in draw.integers(3, 9, N_USERS)]
    texts = {name: ["text"] * N_ITEMS for name in ("title", "brand", "categories", "description")}
    items = {
        "item": pa.array(np.arange(N_ITEMS, dtype=np.int32)),
        "item_id": [f"i{code:02}" for code in range(N_ITEMS)],
        **texts,
        "popularity": pa.array(np.arange(N_ITEMS, dtype=np.int32)),
    }
    users = {
        "user_id": [90 + user if numeric else f"u{user:02}" for user in range(N_USERS)],
        "items": pa.array(lists, pa.list_(pa.int32())),
        "timestamps": pa.array([np.arange(len(one)) for one in lists], pa.list_(pa.int64())),
    }
    with store.draft(Address("corpus", {"domain": domain})) as draft:
        write_corpus(draft, pa.table(items), pa.table(users))
        return draft.commit()


def make_block(corpus: Corpus, k: int, seed: list[int]) -> LabelBlock:
    """Labels of every position; a few ranks only, so that teachers often give the truth the same."""
    draw = np.random.default_rng(seed)
    at = corpus.positions()
    logprobs = np.log(draw.dirichlet(np.full(N_ITEMS, 0.3), len(at)) + 1e-9).astype(np.float32)
    best = np.argsort(-logprobs, axis=1, kind="stable")[:, :k]
    nought = np.zeros(len(at), np.float32)
    return LabelBlock(
        user=at.user,
        position=at.position,
        split=at.split,
        target=at.target,
        items=best.astype(np.int32),
        logprobs=np.take_along_axis(logprobs, best, 1),
        logsumexp=nought,
        kept_mass=nought,
        target_logprob=nought,
        target_rank=draw.integers(1, 4, len(at)).astype(np.int32),
        entropy=nought,
        state=None,
    )


@dataclass(frozen=True)
class Stored:
    """A store of three domains, in which teachers lack positions, users or whole domains; shards end anywhere."""

    root: Path
    corpora: dict[str, Corpus]
    blocks: dict[tuple[str, str], LabelBlock]
    contents: Contents

    @classmethod
    def make(cls, root: Path, numeric: dict[str, bool]) -> "Stored":
        store, draw = Store(root), np.random.default_rng(5)
        artifacts = {domain: commit_corpus(store, domain, numeric.get(domain, False)) for domain in LABELLED}
        corpora = {domain: read_corpus(artifact) for domain, artifact in artifacts.items()}
        blocks, sources = {}, []
        for domain, teachers in LABELLED.items():
            for place, teacher in enumerate(teachers):
                whole = make_block(corpora[domain], DEPTHS[teacher], [place, len(domain)])
                kept = {
                    "Zed's": whole.user % 5 != 2,
                    "able": np.ones(len(whole), bool),
                    "no [name] *": draw.random(len(whole)) < 0.6,
                }[teacher]
                block = blocks[teacher, domain] = whole.take(np.flatnonzero(kept))
                cuts = np.sort(draw.integers(1, len(block), place + 1))
                address = Address("labels", {"teacher": teacher, "domain": domain}, (("of", f"{domain[0]}{place}"),))
                with store.draft(address) as draft:
                    for number, rows in enumerate(np.split(np.arange(len(block)), cuts)):
                        write_part(draft, number, block.take(rows), corpora[domain], {})
                    sources.append(LabelSource(teacher, domain, draft.commit()))
        return cls(root, corpora, blocks, Contents(artifacts, sources))

    def expected(self, name: Callable[[Any], Any]) -> dict[Key, tuple[Any, ...]]:
        """What the view holds: its key columns to its others."""
        found: dict[Key, tuple[Any, ...]] = {}
        for domain, teachers in LABELLED.items():
            ids = self.corpora[domain].user_ids.to_pylist()
            for one, other in combinations(sorted(teachers), 2):
                left, right = self.blocks[one, domain], self.blocks[other, domain]
                for i in range(len(left)):
                    for j in np.flatnonzero((right.user == left.user[i]) & (right.position == left.position[i])):
                        user, split = name(ids[left.user[i]]), SPLITS[left.split[i]]
                        key = (domain, user, int(left.position[i]), split, one, other)
                        found[key] = measured(one, left, i, other, right, int(j))
        return found

    def without(self, *gone: str) -> Contents:
        """The same store without some teachers."""
        return Contents(self.contents.corpora, [s for s in self.contents.labels if s.teacher not in gone])

    def keeping(self, pairs: int) -> Contents:
        """The same store where what is kept of some pairs of teachers is shown, of the first ones in order."""
        store = Store(self.root)
        labels = {(source.domain, source.teacher): source.artifact for source in self.contents.labels}
        kept = []
        for domain, teachers in LABELLED.items():
            for one, other in combinations(sorted(teachers), 2):
                pair = labels[domain, one], labels[domain, other]
                address = Address("agreement", {"labels": [artifact.key for artifact in pair]})
                kept.append(AgreementSource(domain, one, other, write_agreement(store, address, *pair)))
        assert pairs <= len(kept)
        return replace(self.contents, agreements=kept[:pairs])


def measured(one: str, left: LabelBlock, i: int, other: str, right: LabelBlock, j: int) -> tuple[Any, ...]:
    p = dict(zip(left.items[i].tolist(), np.exp(left.logprobs[i].astype(float)), strict=True))
    q = dict(zip(right.items[j].tolist(), np.exp(right.logprobs[j].astype(float)), strict=True))
    depth = min(10, len(p), len(q))
    shared = len({*list(p)[:depth]} & {*list(q)[:depth]}) / depth
    overlap = sum(min(p[item], q[item]) for item in p.keys() & q.keys())
    jaccard = len(p.keys() & q.keys()) / len(p.keys() | q.keys())
    a, b = int(left.target_rank[i]), int(right.target_rank[j])
    target = f"i{left.target[i]:02}"
    return shared, overlap, jaccard, target, a, b, one if a < b else other if b < a else "tie"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return Stored.make(tmp_path_factory.mktemp("store"), {})


@pytest.fixture(scope="module")
def connection(stored: Stored) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_views(stored.contents, threads=1) as connection:
        yield connection


def rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    with ask(connection, query) as answer:
        return [row for batch in answer.batches() for row in zip(*(c.to_pylist() for c in batch.columns), strict=True)]


def check(found: list[tuple[Any, ...]], expected: dict[Key, tuple[Any, ...]]) -> None:
    by_key = {row[:6]: row[6:] for row in found}
    assert len(by_key) == len(found)
    assert by_key.keys() == expected.keys()
    for key, values in expected.items():
        assert by_key[key][:3] == pytest.approx(values[:3], rel=1e-6, abs=1e-9)
        assert by_key[key][3:] == values[3:]


def test_every_pair_of_teachers_is_measured_where_both_have_a_label(
    stored: Stored, connection: duckdb.DuckDBPyConnection
) -> None:
    expected = stored.expected(str)
    assert {key[4:] for key in expected if key[0] == "tools"} == set(combinations(sorted(DEPTHS), 2))
    assert {row[6] for row in expected.values()} == {*DEPTHS, "tie"}
    assert len(expected) < sum(stored.corpora[domain].n_positions * n for domain, n in (("tools", 3), ("it's odd", 1)))
    check(rows(connection, "select * from agreement"), expected)


@pytest.mark.parametrize(
    ("numeric", "name"),
    [(dict.fromkeys(LABELLED, True), int), ({"tools": True}, str)],
    ids=["all integers", "integers in one domain"],
)
def test_users_are_matched_whatever_their_identifiers(
    tmp_path: Path, numeric: dict[str, bool], name: Callable[[Any], Any]
) -> None:
    stored = Stored.make(tmp_path, numeric)
    expected = stored.expected(name)
    with open_views(stored.contents, threads=1) as connection:
        check(rows(connection, "select * from agreement"), expected)
        user = "91" if name is int else "'91'"
        one = {key: values for key, values in expected.items() if key[1] == name(91)}
        assert one
        check(rows(connection, f"select * from agreement where user_id = {user}"), one)


@pytest.mark.parametrize("gone", [("able", "Zed's"), tuple(DEPTHS)], ids=["one teacher", "no teacher"])
def test_fewer_than_two_teachers_have_no_agreement(stored: Stored, gone: tuple[str, ...]) -> None:
    with open_views(stored.without(*gone), threads=1) as connection:
        assert rows(connection, "select * from agreement") == []
        assert rows(connection, "select avg(overlap) from agreement") == [(None,)]


def test_a_pair_is_measured_the_same_whichever_other_teachers_there_are(stored: Stored) -> None:
    expected = {key: values for key, values in stored.expected(str).items() if "able" not in key[4:]}
    with open_views(stored.without("able"), threads=1) as connection:
        check(rows(connection, "select * from agreement"), expected)


ALL_PAIRS = 4


@pytest.mark.parametrize("pairs", [1, ALL_PAIRS], ids=["one pair", "all pairs"])
@pytest.mark.parametrize("numeric", [{}, dict.fromkeys(LABELLED, True), {"tools": True}], ids=["text", "all", "one"])
def test_what_is_kept_holds_the_very_rows_that_are_computed(
    tmp_path: Path, pairs: int, numeric: dict[str, bool]
) -> None:
    stored = Stored.make(tmp_path, numeric)
    query = "select * from agreement order by all"
    with open_views(stored.contents) as computed, open_views(stored.keeping(pairs)) as kept:
        expected = rows(computed, query)
        assert rows(kept, query) == expected
        assert rows(kept, "describe agreement") == rows(computed, "describe agreement")
    assert expected


def test_the_same_labels_make_the_same_bytes(tmp_path: Path) -> None:
    digests = [
        [source.artifact.files[AGREEMENT].sha256 for source in Stored.make(tmp_path / name, {}).keeping(3).agreements]
        for name in ("a", "b")
    ]
    assert digests[0] == digests[1]
    assert len({*digests[0]}) == 3


def test_where_agreement_is_kept_no_list_is_read(tmp_path: Path) -> None:
    contents = Stored.make(tmp_path, {}).keeping(ALL_PAIRS)
    with open_views(contents, threads=1) as connection:
        ran = nodes(connection, "select avg(overlap) from agreement where domain = 'it''s odd'", analyze=True)
    read = [node["extra_info"]["Filename(s)"] for node in ran if "Filename(s)" in node["extra_info"]]
    (artifact,) = (source.artifact for source in contents.agreements if source.domain == "it's odd")
    assert read == [f"ckd://agreement/{artifact.path.name}/{AGREEMENT}"]


def test_a_flipped_bit_in_what_is_kept_is_reported(tmp_path: Path) -> None:
    contents = Stored.make(tmp_path, {}).keeping(1)
    path = contents.agreements[0].artifact.path / AGREEMENT
    damaged = bytearray(path.read_bytes())
    damaged[100] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DamagedArtifact, match=r"agreement\.parquet is damaged.*ckd precompute"):
        open_views(contents)


@pytest.mark.parametrize("measure", ["shared_10", "overlap", "jaccard"])
def test_teachers_that_say_the_same_agree_fully_and_tie(tmp_path: Path, measure: str) -> None:
    store = Store(tmp_path)
    artifact = commit_corpus(store, "tools", False)
    corpus = read_corpus(artifact)
    block = make_block(corpus, N_ITEMS, [1])
    sources = []
    for teacher in ("a", "b"):
        with store.draft(Address("labels", {"teacher": teacher}, (("of", teacher),))) as draft:
            write_part(draft, 0, block, corpus, {})
            sources.append(LabelSource(teacher, "tools", draft.commit()))
    with open_views(Contents({"tools": artifact}, sources), threads=1) as connection:
        ((least, most, ties, n),) = rows(
            connection,
            f"select min({measure}), max({measure}), count(*) filter (where closer = 'tie'), count(*) from agreement",
        )
    assert (least, most) == pytest.approx((1, 1), abs=1e-5)
    assert most <= 1
    assert ties == n == corpus.n_positions


def nodes(connection: duckdb.DuckDBPyConnection, query: str, analyze: bool = False) -> list[dict[str, Any]]:
    options = "analyze, format json" if analyze else "format json"
    plan = json.loads(connection.execute(f"explain ({options}) {query}").fetchall()[0][1])
    pending, found = [plan["operator"] if analyze else plan], []
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending.extend(node)
        else:
            found.append(node)
            pending.append(node.get("children", []))
    return found


def scans(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    """What the plan says of each Parquet scan."""
    return [n["extra_info"] for n in nodes(connection, query) if n["extra_info"].get("Function") == "READ_PARQUET"]


@pytest.mark.parametrize(
    ("where", "filters"),
    [
        ("split = 'test'", {"split = 'test'"}),
        ("user_id = 'u03'", {"user_id = 'u03'"}),
        ("split = 'train' and position < 3", {"split = 'train'", "position < 3"}),
    ],
)
def test_a_filter_reaches_the_scans_of_both_teachers(
    connection: duckdb.DuckDBPyConnection, where: str, filters: set[str]
) -> None:
    query = f"select avg(overlap) from agreement where domain = 'it''s odd' and {where}"
    left, right = scans(connection, query)
    for scan in (left, right):
        assert all(one in str(scan["Filters"]) for one in filters)
    assert not any("UNNEST" in node["name"] for node in nodes(connection, query))


@pytest.mark.parametrize(
    ("where", "domains", "teachers", "pairs"),
    [
        ("domain = 'it''s odd'", {"it's odd"}, {"able", "Zed's"}, 1),
        ("domain = 'tools' and teacher = 'able'", {"tools"}, {"able", "no [name] *"}, 1),
        ("domain = 'tools' and other = 'able'", {"tools"}, {"able", "Zed's"}, 1),
        ("teacher = 'Zed''s' and other = 'able'", {"tools", "it's odd"}, {"able", "Zed's"}, 2),
        ("teacher = 'no [name] *'", set(), set(), 0),
        ("domain = 'alone'", set(), set(), 0),
    ],
)
def test_only_the_files_of_the_pairs_that_are_asked_for_are_read(
    stored: Stored,
    connection: duckdb.DuckDBPyConnection,
    where: str,
    domains: set[str],
    teachers: set[str],
    pairs: int,
) -> None:
    ran = nodes(connection, f"select avg(shared_10) from agreement where {where}", analyze=True)
    read = [node["extra_info"]["Filename(s)"].split(", ") for node in ran if "Filename(s)" in node["extra_info"]]
    expected = {
        f"ckd://labels/{source.artifact.key[:16]}/{name}"
        for source in stored.contents.labels
        if source.domain in domains and source.teacher in teachers
        for name in part_names(source.artifact)
    }
    assert len(read) == 2 * pairs
    assert {name for names in read for name in names} == expected


@pytest.mark.parametrize(
    ("column", "needed"),
    [
        ("shared_10", {"items"}),
        ("jaccard", {"items"}),
        ("overlap", {"items", "logprobs"}),
        ("target_rank", {"target_rank"}),
        ("closer", {"target_rank"}),
    ],
)
def test_a_question_reads_only_the_columns_that_it_needs(
    connection: duckdb.DuckDBPyConnection, column: str, needed: set[str]
) -> None:
    found = scans(connection, f"select max({column}) from agreement where domain = 'it''s odd'")
    assert len(found) == 2
    assert {name for scan in found for name in scan["Projections"]} == {"user_id", "position", "split"} | needed
