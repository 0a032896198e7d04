"""`ckd runs`: the leaderboard, and that SQL gives the same."""

import re
from statistics import mean, stdev

import pytest

from ckd.pipeline.report.leaderboard import standings
from ckd.pipeline.report.run_settings import differing, settings_of, short_names, shown
from ckd.stages.distill.address import run_address
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.students.sasrec import Settings
from ckd.storage.keys import Address
from ckd.storage.runs import write_metrics
from ckd.storage.sql import EXAMPLES, VIEWS, Contents, ask, open_views
from ckd.storage.store import Store

CORPORA = {"tools": "1" * 64, "books": "2" * 64}
LABELS = {"teacher": {"model.safetensors": "0" * 64}, "format": 1}


def commit_labels(store, top_k, domain="tools"):
    inputs = {**LABELS, "corpus": CORPORA[domain], "top_k": top_k}
    with store.draft(Address("labels", inputs, (("teacher", "uni"), ("domain", domain)))) as draft:
        return draft.commit()


def commit_run(store, valid, test, seed=0, labels=None, rate=0.1):
    """Store a run of the domains of ``valid`` and ``test``, with values of ndcg@10; ``labels`` are by domain."""
    settings = Settings(hidden=8, learning_rate=rate, scope="joint" if len(valid) > 1 else "per_domain")
    taught = {domain: {"uni": of.key} for domain, of in (labels or {}).items()}
    corpora = {domain: CORPORA[domain] for domain in valid}
    address = run_address("small", settings, DistillSettings(alpha=0.5), False, seed, corpora, taught)
    with store.draft(address) as draft:
        values = {domain: {"valid": valid[domain], "test": test[domain]} for domain in valid}
        write_metrics(
            draft,
            {
                domain: {split: {"ndcg@10": value, "mrr": 1 - value} for split, value in splits.items()}
                for domain, splits in values.items()
            },
        )
        return draft.commit({"parameters": 7, "epochs": 3, "best_epoch": 2})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def runs(store):
    """Two settings of distillation with three seeds each, a baseline with one, and one run in another domain."""
    one, other = ({"tools": commit_labels(store, top_k)} for top_k in (5, 9))
    return [
        *(commit_run(store, {"tools": 0.1 + seed / 100}, {"tools": 0.9}, seed, one) for seed in range(3)),
        *(commit_run(store, {"tools": 0.3 + seed / 50}, {"tools": 0.2}, seed, other) for seed in range(3)),
        commit_run(store, {"tools": 0.2}, {"tools": 0.95}),
        commit_run(store, {"books": 0.5}, {"books": 0.5}),
    ]


def commit_joint(store, taught=("books",)):
    """Store a student of both domains that was taught in some of them, with two seeds."""
    labels = {domain: commit_labels(store, 5, domain) for domain in taught}
    return [
        commit_run(store, {"tools": 0.25, "books": 0.6 + seed / 10}, {"tools": 0.3, "books": 0.4}, seed, labels)
        for seed in range(2)
    ]


def test_seeds_of_the_same_settings_are_one_row_and_validation_alone_orders(runs, store):
    found = standings(runs, "ndcg@10", store)
    assert [(one.domain, one.teachers, len(one.valid)) for one in found] == [
        ("books", (), 1),
        ("tools", ("uni",), 3),
        ("tools", (), 1),
        ("tools", ("uni",), 3),
    ]
    assert [mean(one.valid) for one in found] == pytest.approx([0.5, 0.32, 0.2, 0.11])
    assert [mean(one.test) for one in found] == pytest.approx([0.5, 0.2, 0.95, 0.9])


def test_another_metric_orders_otherwise(runs, store):
    assert [mean(one.valid) for one in standings(runs, "mrr", store)] == pytest.approx([0.5, 0.89, 0.8, 0.68])


def test_only_settings_that_differ_are_columns_and_labels_are_told_by_what_they_were_made_with(runs, store):
    found = standings(runs, "ndcg@10", store)
    names = differing([(one.domain, one.settings) for one in found])
    assert names == ["labels.uni.top_k"]
    assert short_names(names) == {"labels.uni.top_k": "top_k"}


def test_where_labels_are_gone_their_keys_tell_them_apart(runs, tmp_path):
    found = standings(runs, "ndcg@10", Store(tmp_path / "elsewhere"))
    assert differing([(one.domain, one.settings) for one in found]) == ["labels.uni"]


def test_a_run_without_distillation_differs_from_no_other_in_what_it_has_not():
    plain = settings_of({"student": "s", "training": {"epochs": 3}, "teaching": None})
    taught = settings_of({"student": "s", "training": {"epochs": 3}, "teaching": {"alpha": 0.5, "loss": {"top_k": 1}}})
    assert taught == {"distill.epochs": 3, "distill.alpha": 0.5, "distill.loss": {"top_k": 1}}
    assert differing([("d", plain), ("d", taught)]) == []
    other = settings_of(
        {"student": "s", "training": {"epochs": 3}, "teaching": {"alpha": 0.5, "loss": {"in_batch": 1}}}
    )
    assert differing([("d", plain), ("d", taught), ("d", other)]) == ["distill.loss"]


def test_settings_are_named_as_in_the_configuration_and_shortened_while_clear():
    names = ["students.a.hidden", "students.b.hidden", "distill.curriculum.start", "distill.alpha"]
    assert short_names(names) == {
        "students.a.hidden": "a.hidden",
        "students.b.hidden": "b.hidden",
        "distill.curriculum.start": "start",
        "distill.alpha": "alpha",
    }
    assert shown({"top_k": 1.0, "in_batch": 0.5}) == "in_batch 0.5, top_k 1"


def test_a_joint_student_has_a_row_in_each_of_its_domains_with_what_it_learned_there(store):
    found = standings(commit_joint(store), "ndcg@10", store)
    assert [(one.domain, one.teachers, one.valid, one.test) for one in found] == [
        ("books", ("uni",), (0.6, 0.7), (0.4, 0.4)),
        ("tools", (), (0.25, 0.25), (0.3, 0.3)),
    ]


def test_a_joint_student_is_told_from_one_of_the_domain_alone_by_its_scope(store):
    labels = {"books": commit_labels(store, 5, "books")}
    apart = commit_run(store, {"books": 0.4}, {"books": 0.4}, labels=labels)
    found = [one for one in standings([apart, *commit_joint(store)], "ndcg@10", store) if one.domain == "books"]
    assert [one.settings["labels.uni"] for one in found] == [labels["books"].key] * 2
    assert differing([(one.domain, one.settings) for one in found]) == ["students.small.scope"]
    assert found[0].settings["corpora.tools"] == CORPORA["tools"]


def test_what_joint_students_learned_elsewhere_tells_them_apart(store):
    labels = [{"books": commit_labels(store, top_k, "books")} for top_k in (5, 9)]
    both = {"tools": 0.5, "books": 0.5}
    found = standings([commit_run(store, both, both, labels=one) for one in labels], "ndcg@10", store)
    assert [one.domain for one in found] == ["books", "books", "tools", "tools"]
    for domain, names in (("books", ["labels.uni.top_k"]), ("tools", ["labels beside.books.uni.top_k"])):
        assert differing([(domain, one.settings) for one in found if one.domain == domain]) == names


def test_a_damaged_run_is_left_out_and_said_to_be(workplace):
    kept = Store(workplace.store)
    whole, torn = (commit_run(kept, {"tools": value}, {"tools": 0.5}, seed) for seed, value in enumerate((0.1, 0.2)))
    (torn.path / "metrics.parquet").write_bytes(b"")
    done = workplace.ckd("runs", "--all")
    assert done.returncode == 0
    assert f"left out {torn.path}: it is damaged; run `ckd distill` to make it again" in done.stderr
    assert str(whole.path) not in done.stderr
    assert [row[3] for row in cells(done.stdout)[2:] if row[0] == "tools"] == ["1"]


@pytest.mark.parametrize(("asked", "listed"), [((), ["books", "tools"]), (("tools",), ["tools"])])
def test_the_command_lists_of_a_joint_student_only_the_domain_it_is_asked_for(workplace, asked, listed):
    commit_joint(Store(workplace.store))
    done = workplace.ckd("runs", "--all", *(word for name in asked for word in ("--domain", name)))
    assert done.returncode == 0, done.stderr
    assert [row[0] for row in cells(done.stdout)[2:] if row[0] in CORPORA] == listed


def test_a_joint_student_is_of_the_configuration_only_if_all_of_its_corpora_are(workplace):
    commit_joint(Store(workplace.store))
    done = workplace.ckd("runs")
    assert done.returncode == 0, done.stderr
    assert "no such run is in" in done.stdout
    assert "; --all lists 2 others" in done.stdout


def test_sql_gives_the_same_leaderboard(runs, store):
    runs = [*runs, *commit_joint(store, taught=CORPORA)]
    query = next(query for question, query in EXAMPLES.items() if "ckd runs" in question)
    with open_views(Contents({}, [], runs)) as connection, ask(connection, query) as answer:
        rows = [row for batch in answer.batches() for row in batch.to_pylist()]
    expected = standings(runs, "ndcg@10", store)
    assert [(row["domain"], row["student"], row["teachers"], row["seeds"], row["parameters"]) for row in rows] == [
        (one.domain, one.student, ", ".join(one.teachers) or None, len(one.valid), one.parameters) for one in expected
    ]
    for row, one in zip(rows, expected, strict=True):
        assert row["valid"] == pytest.approx(mean(one.valid), abs=5e-5)
        assert row["test"] == pytest.approx(mean(one.test), abs=5e-5)
        assert row["spread"] == (pytest.approx(stdev(one.valid), abs=5e-5) if len(one.valid) > 1 else None)


@pytest.mark.parametrize(
    ("column", "example", "answers"),
    [
        ("settings", "settings->>'$.settings.learning_rate'", ["0.1", "0.2"]),
        ("inputs", "inputs->>'$.student'", ["small"]),
    ],
)
def test_the_example_of_a_column_answers(runs, store, column, example, answers):
    assert VIEWS["runs"].columns[column].meaning.endswith(example)
    others = [commit_run(store, {"tools": 0.1}, {"tools": 0.1}, rate=0.2), *runs]
    query = f"select distinct {example} as answer from runs order by all"
    with open_views(Contents({}, [], others)) as connection, ask(connection, query) as answer:
        assert [row["answer"] for batch in answer.batches() for row in batch.to_pylist()] == answers


def test_settings_of_runs_can_be_asked_in_sql(runs):
    query = """select settings->>'$.settings.learning_rate' as rate, count(*) as n, count(distinct settings) as groups
        from runs where list_contains(domains, 'tools') group by rate"""
    with open_views(Contents({}, [], runs)) as connection, ask(connection, query) as answer:
        assert [row for batch in answer.batches() for row in batch.to_pylist()] == [
            {"rate": "0.1", "n": 7, "groups": 3}
        ]


def cells(printed):
    return [re.split(r" {2,}", line.strip()) for line in printed.splitlines()]


def test_the_command_lists_what_distill_trained(distilled):
    done = distilled.ckd("runs")
    assert done.returncode == 0, done.stderr
    header, _, *rows = cells(done.stdout)
    assert header == ["domain", "student", "learned from", "seeds", "valid ndcg@10", "test ndcg@10", "parameters"]
    assert sorted(row[2] for row in rows[:2]) == ["uni", "—"]
    assert rows[0][4] >= rows[1][4]
    assert rows[2][0].startswith("Ordered by the mean of ndcg@10 on validation, which alone chooses")


def test_the_command_lists_of_other_corpora_only_what_it_is_asked_for(distilled):
    other = ("--set", "domains.tiny.k_core=2")
    assert "; --all lists 2 others" in distilled.ckd("runs", *other).stdout
    assert len(cells(distilled.ckd("runs", *other, "--all").stdout)) == 5
    left = distilled.ckd("runs", "--limit", "1").stdout.splitlines()
    assert left[-1] == "--limit 1 leaves out 1 of 2 rows."


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--domain", "tinny"), "--domain: no domain is named 'tinny'; did you mean tiny?"),
        (("--student", "smal"), "--student: no student is named 'smal'; did you mean small?"),
        (("--metric", "ndcg@1"), "--metric: no metric is named 'ndcg@1'; did you mean ndcg@10?"),
    ],
)
def test_a_name_that_there_is_not_is_answered_with_the_nearest(distilled, arguments, said):
    done = distilled.ckd("runs", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {said}\n")
