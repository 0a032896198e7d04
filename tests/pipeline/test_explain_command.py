"""`ckd distill --explain` as people and programs see it."""

import io
import json
import re
import shutil
from dataclasses import replace

import click
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from ckd.pipeline.cli import main
from ckd.pipeline.commands.explain import refuse_mixed
from ckd.pipeline.report.explain import print_explanations
from ckd.stages.distill.explanation import Explanation, Item, Position, Said, Suggestion, Term, User
from ckd.stages.distill.settings import DistillSettings

LONG = "a [red]very[/red] long title " * 9
SAID = Said(1234567, 3e-7, 3e-7, 0.25, 0.75, 0.625, (Suggestion("i2", LONG, 0.5), Suggestion("i1", "pen", 0.25)))
TAUGHT = Position(7, "taught", Item("i1", "pen"), 1.0, 0.2, 1.25, {"a": SAID, "recformer": None})
USER = User("u\x1b[31m", "hardest", 11, 2, 6, 1, 0.5, {"length": Term(9.0, 0.75, 1.0)}, 3, (TAUGHT,))
FOUND = Explanation(6, 6, 1.0, 100, 5_000, 20, 30, (USER,))


def printed(found: Explanation, width: int = 100) -> str:
    out = io.StringIO()
    print_explanations(Console(file=out, width=width), "small", {"office": found}, DistillSettings())
    assert max(map(len, out.getvalue().splitlines())) <= width
    return out.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


def of_user(**values: object) -> Explanation:
    return replace(FOUND, users=(replace(USER, **values),))


# --- the table


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_every_number_stands_whole_at_any_width_and_titles_are_cut(width: int) -> None:
    text = printed(FOUND, width)
    assert "c=3e-07 s=0.2500 w=0.7500 g=1.2500 weight=0.6250 rank=1,234,567" in words(text)
    (title,) = (line for line in text.splitlines() if "0.5000  a [red]very[/red]" in line)
    assert title.rstrip().endswith("…")
    assert re.search(r"0\.2500  = pen *$", text, re.MULTILINE)
    assert re.search(r"^7  truth +pen *$", text, re.MULTILINE)
    assert re.search(r"^ +recformer +no label *$", text, re.MULTILINE)


def test_the_lines_above_say_who_when_and_how_difficult() -> None:
    assert printed(FOUND).splitlines()[:7] == [
        "office: 5,000 training positions of 100 users, 30 of them without a label (the truth alone), 20 more",
        "that small never sees (max_length 6)",
        "",
        r"user u\x1b[31m of office, hardest",
        "  served from epoch 3 on",
        "  difficulty 0.5000, the rank of the weighted sum of",
        "    length 9: rank 0.7500, weight 1",
    ]
    assert (
        "11 items: positions 1-2 never seen (max_length 6), positions 3-8 trained (1 without a label), "
        "positions 9-10 held out" in words(printed(FOUND))
    )


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"first_epoch": None}, "never served: distill.epochs is 100, and the curriculum comes to it later"),
        ({"difficulty": None, "terms": {}, "first_epoch": 1}, "served in every epoch: the curriculum is off"),
        ({"items": 3, "cut": 0, "trained": 0, "positions": ()}, "never served: nothing is left to train on"),
        ({"items": 3, "cut": 0, "trained": 0, "positions": ()}, "3 items: positions 1-2 held out"),
        ({"terms": {"avg(x)\n-- y": Term(None, 0.0, 2.0)}}, "avg(x) -- y —: rank 0.0000, weight 2"),
    ],
)
def test_whoever_is_not_served_as_others_is_told_why(values: dict[str, object], line: str) -> None:
    assert line in words(printed(of_user(**values)))


def test_positions_that_are_not_taught_say_so() -> None:
    untaught = replace(TAUGHT, state="truth", gate=None, truth_weight=1.0, teachers={"a": None})
    unseen = replace(TAUGHT, state="cut", gate=None, truth_weight=None)
    text = words(printed(of_user(positions=(unseen, untaught))))
    assert "7 truth pen never seen: small sees the last 6 items" in text
    assert "7 truth pen not taught: no teacher has a label here; the truth alone, weight=1" in text
    assert "recformer" not in text


def test_what_a_position_counts_is_said_where_a_student_does_not_count_all_alike() -> None:
    half = replace(TAUGHT, counts=0.5, truth_weight=0.1)
    text = words(printed(of_user(positions=(half,))))
    assert "7 truth pen n=0.5000" in text
    assert "n: what small lets a position count in an epoch, in the mean over its draws" in text
    assert "weight: alpha g w n, of the teacher's losses, beside 0.2 n of the truth" in text
    assert "n:" not in words(printed(FOUND)) and "alpha g w," in words(printed(FOUND))


def test_an_item_without_a_title_is_named_by_its_identifier() -> None:
    nameless = replace(TAUGHT, target=Item(17, ""), teachers={})
    assert "7 truth item 17" in words(printed(of_user(positions=(nameless,))))


def test_the_letters_are_explained_with_the_measures_and_the_epoch_they_are_of() -> None:
    legend = words(printed(FOUND)).partition(" t: ")[2]
    for part in ("c: confidence (target_probability)", "epoch 6, which serves all", "(alpha 0.8)", "0.2 of the truth"):
        assert part in legend
    assert "epoch 2, the last, which serves 62.5% of them" in words(printed(replace(FOUND, epoch=2, share=0.625)))


# --- the command


@pytest.fixture(scope="module")
def asked(labelled):
    """What `ckd distill --explain --format json` says of the tiny domain, all positions of three users."""
    done = labelled.ckd("distill", "--explain", "--format", "json", "--positions", "99", "--items", "7")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout, parse_constant=pytest.fail)


@pytest.fixture
def explained(labelled, monkeypatch, capsys):
    """A function of further arguments: `ckd distill --explain` in this process; its exit code and what it printed."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(labelled.folder)
        code = main(["distill", "--explain", *arguments])
        return code, *capsys.readouterr()

    return run


def test_json_holds_a_domain_with_its_students_name_and_three_users(asked) -> None:
    (domain,) = asked
    assert (domain["domain"], domain["student"], domain["max_length"]) == ("tiny", "small", 8)
    assert [user["picked"] for user in domain["users"]] == ["easiest", "median", "hardest"]
    assert domain["users"][0]["first_epoch"] == 1
    assert domain["users"][2]["first_epoch"] == 6
    assert domain["users"][2]["cut"] > 0


def test_json_says_what_the_label_shards_say(labelled, asked) -> None:
    items = pq.read_table(next(labelled.store.glob("corpus/*/items.parquet"))).to_pylist()
    rows = [row for path in labelled.labels.glob("part-*.parquet") for row in pq.read_table(path).to_pylist()]
    label = {(row["user_id"], row["position"]): row for row in rows}
    checked = 0
    for user in asked[0]["users"]:
        for at in user["positions"]:
            row, said = label[user["user_id"], at["position"]], at["teachers"]["uni"]
            assert (at["target"]["item_id"], said["target_rank"]) == (row["target"], row["target_rank"])
            assert [one["item_id"] for one in said["items"]] == [items[code]["item_id"] for code in row["items"]]
            assert [one["title"] for one in said["items"]] == [items[code]["title"] or "" for code in row["items"]]
            assert sum(one["probability"] for one in said["items"]) == pytest.approx(row["kept_mass"], rel=1e-3)
            # One teacher: nobody to differ from, so that all weights are those of the loss alone.
            assert (said["weight"], at["gate"]) == (1.0, None if at["state"] == "cut" else 1.0)
            checked += 1
    assert checked == sum(user["items"] - 3 for user in asked[0]["users"])


def test_the_table_is_of_the_same_users_and_numbers(explained, asked) -> None:
    code, out, err = explained()
    assert (code, err) == (0, "")
    for user in asked[0]["users"]:
        assert f"user {user['user_id']} of tiny, {user['picked']}\n" in out
        said = user["positions"][-1]["teachers"]["uni"]
        assert f"weight={said['loss_weight']:.4f} rank={said['target_rank']}" in out


def test_a_student_that_counts_positions_unevenly_has_its_weights_shown(explained) -> None:
    student = ("--set", "students={graph: {kind: lightgcn, recency: 0.5}}")
    (domain,) = json.loads(explained("--format", "json", "--positions", "99", *student)[1])
    for user in domain["users"]:
        counts = [at["counts"] for at in user["positions"] if at["counts"] is not None]
        assert counts == [0.5**later for later in range(len(counts))][::-1]
        assert [at["truth_weight"] for at in user["positions"]][-1] in (None, pytest.approx(0.2))
    assert any(len(user["positions"]) > 3 for user in domain["users"])


def test_named_users_are_explained_in_their_order(explained) -> None:
    options = ("--user", "user-09", "--user", "user-00", "--domain", "tiny", "--student", "small", "--positions", "1")
    (domain,) = json.loads(explained("--format", "json", *options)[1])
    assert [(user["user_id"], user["picked"]) for user in domain["users"]] == [("user-09", None), ("user-00", None)]
    assert [len(user["positions"]) for user in domain["users"]] == [1, 0]


def test_what_the_terminal_cannot_show_is_escaped(explained, monkeypatch) -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", ascii_only)
    # The hardest user is not served, so there is a dash where its gate would be.
    assert explained("--set", "distill.epochs=1")[0] == 0
    assert rb"g=\u2014 weight=\u2014" in ascii_only.buffer.getvalue()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--user", "user-099"), "error: --user: no user 'user-099' in tiny; nearest: user-09, user-00, user-01"),
        (("--domain", "tinny"), "error: --domain: no domain is named 'tinny'; did you mean tiny?"),
        (("--student", "x"), "error: --student: no student is named 'x'; known: small"),
        (("--set", "students={}"), "error: students: the configuration names no student, so there is nothing to "
         "explain"),
        (("--set", "distill.alpha=0"), "error: distill.alpha is 0, so students learn from the truth alone; raise it to "
         "have them taught"),
        (("--set", "distill.teachers=[]"), "error: no teacher teaches the students of any domain; see teachers and "
         "distill.teachers"),
    ],
)  # fmt: skip
def test_what_cannot_be_explained_is_one_line(explained, options: tuple[str, ...], line: str) -> None:
    assert explained(*options) == (2, "", f"{line}\n")


def test_missing_labels_and_a_missing_corpus_are_the_usual_line(workplace, monkeypatch, capsys) -> None:
    monkeypatch.chdir(workplace.folder)
    assert main(["distill", "--explain"]) == 2
    line = "error: the store has no labels of teacher uni for domain tiny; run `ckd precompute`\n"
    assert capsys.readouterr() == ("", line)
    shutil.rmtree(workplace.store / "corpus")
    assert main(["distill", "--explain"]) == 2
    assert capsys.readouterr() == ("", "error: the store has no corpus of domain tiny; run `ckd precompute`\n")


@pytest.mark.parametrize("option", ["--user", "--positions", "--items"])
def test_an_option_of_the_explanation_without_it_is_refused_before_anything_is_trained(
    workplace, monkeypatch, capsys, option: str
) -> None:
    monkeypatch.chdir(workplace.folder)
    assert main(["distill", option, "3"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"Error: {option} says what to explain; add --explain"


def test_it_is_of_one_student(workplace, monkeypatch, capsys) -> None:
    monkeypatch.chdir(workplace.folder)
    assert main(["distill", "--explain", "--student", "small", "--student", "other"]) == 2
    line = "Error: --explain shows what one student is taught; name it with one --student"
    assert capsys.readouterr().err.splitlines()[-1] == line


def test_an_option_of_the_training_beside_it_is_refused() -> None:
    @click.command()
    @click.option("--explain", is_flag=True)
    @click.option("--user")
    @click.option("--jobs", type=int)
    def command(explain: bool, user: str, jobs: int) -> None:
        refuse_mixed(explain)

    command.main(["--explain", "--user", "x"], standalone_mode=False)
    command.main(["--jobs", "2"], standalone_mode=False)
    with pytest.raises(click.UsageError, match="--jobs says how to train; leave it out beside --explain"):
        command.main(["--explain", "--jobs", "2"], standalone_mode=False)
