"""`ckd status` as a process: what it promises to reuse and to compute, its reasons, and that it touches nothing."""

import re
import shutil

import pytest

from ckd.storage.files import sha256_file

SHORT = ("--set", "distill.epochs=3")
REUSE = ("reuse", "made from the same inputs")
NEW = ("compute", "not in the store")
CORPUS, TEXT, LABELS = "corpus of tiny", "text of tiny", "labels of uni, tiny"
PLAIN, TAUGHT = "run of small, tiny, plain", "run of small, tiny, distilled"
COMMANDS = {
    "corpus": "ckd prepare",
    "text": "ckd prepare",
    "teacher": "ckd pretrain",
    "labels": "ckd precompute",
    "run": "ckd distill",
}
ALL = (CORPUS, TEXT, LABELS, PLAIN, TAUGHT)


def changed(*names):
    return "compute", f"changed since the stored one: {', '.join(names)}"


def contents(folder):
    """Everything below a folder: paths, and the digests of files."""
    return {path: path.is_dir() or sha256_file(path) for path in folder.rglob("*")}


def status(place, *arguments):
    """``{what: (state, why)}`` as `ckd status` prints it; the keys in reasons are left out."""
    before = contents(place.folder)
    done = place.ckd("status", *arguments)
    assert done.returncode == 0, done.stderr
    assert contents(place.folder) == before
    header, _, *lines = (re.split(r" {2,}", line.rstrip()) for line in done.stdout.splitlines())
    assert header == ["command", "makes", "of", "state", "why"]
    for command, what, *_ in lines:
        assert command == COMMANDS[what]
    return {
        f"{what} of {subject}": (state, re.sub("^the store has [0-9a-f]{16}, ", "", why))
        for _, what, subject, state, why in lines
    }


def test_without_a_store_everything_is_to_be_computed_and_none_is_made(workplace):
    shutil.rmtree(workplace.store)
    assert status(workplace) == dict.fromkeys(ALL, NEW)
    assert not workplace.store.exists()


def test_what_is_prepared_is_reused(workplace):
    assert status(workplace) == {CORPUS: REUSE, TEXT: REUSE, LABELS: NEW, PLAIN: NEW, TAUGHT: NEW}


def test_after_precompute_the_labels_are_reused(labelled):
    assert status(labelled) == {CORPUS: REUSE, TEXT: REUSE, LABELS: REUSE, PLAIN: NEW, TAUGHT: NEW}


def test_after_distill_everything_is_reused(distilled):
    assert status(distilled, *SHORT) == dict.fromkeys(ALL, REUSE)


def test_what_changes_speed_files_or_reports_only_concerns_nothing(distilled):
    harmless = ["labels.batch_size=3", "labels.shard_rows=77", "device=auto", "domains.tiny.max_rejected=0.5"]
    arguments = [word for override in [*harmless, "evaluate.bootstrap=100"] for word in ("--set", override)]
    assert status(distilled, *SHORT, *arguments) == dict.fromkeys(ALL, REUSE)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("labels.top_k=5", {LABELS: changed("top_k"), TAUGHT: changed("labels.tiny.uni")}),
        ("distill.temperature=2", {TAUGHT: changed("distill.temperature")}),
        ("distill.patience=99", dict.fromkeys((PLAIN, TAUGHT), changed("distill.patience"))),
        ("students.small.learning_rate=0.1", dict.fromkeys((PLAIN, TAUGHT), changed("students.small.learning_rate"))),
        ("seed=1", dict.fromkeys((PLAIN, TAUGHT), changed("seed"))),
        (
            "text.max_tokens=8",
            {TEXT: changed("max_tokens"), LABELS: changed("text"), TAUGHT: changed("labels.tiny.uni")},
        ),
    ],
)
def test_another_setting_concerns_what_depends_on_it_and_is_named(distilled, override, expected):
    assert status(distilled, *SHORT, "--set", override) == dict.fromkeys(ALL, REUSE) | expected


def test_another_weight_file_of_the_teacher_concerns_labels_and_what_is_learnt_from_them(
    distilled, world, make_teacher, tmp_path
):
    other = make_teacher(tmp_path / "other", world.text.encoder, seed=6)
    assert status(distilled, *SHORT, "--set", f"teachers.uni.checkpoint={other}") == dict.fromkeys(ALL, REUSE) | {
        LABELS: changed("teacher.model.safetensors"),
        TAUGHT: changed("labels.tiny.uni"),
    }


def test_another_title_in_the_raw_items_concerns_everything(distilled, other_items):
    assert status(distilled, *SHORT, "--set", f"domains.tiny.path={other_items}") == {
        CORPUS: changed("items.sha256"),
        TEXT: changed("corpus"),
        LABELS: changed("corpus", "text"),
        PLAIN: changed("corpora.tiny"),
        TAUGHT: changed("corpora.tiny", "labels.tiny.uni"),
    }


def test_what_waits_for_something_else_says_for_what(distilled):
    waiting = ("compute", "teacher uni is not trained yet; run `ckd pretrain` first")
    found = status(distilled, *SHORT, "--set", "teachers.uni.adapt.mode=inductive")
    assert found == dict.fromkeys(ALL, REUSE) | {
        "teacher of uni, adapted to tiny": NEW,
        LABELS: waiting,
        TAUGHT: waiting,
    }


def test_an_encoder_that_would_have_to_be_fetched_is_not_fetched(distilled):
    waiting = ("compute", "text encoder nobody/nothing is not on this machine yet; `ckd prepare` fetches it")
    found = status(distilled, *SHORT, "--set", "text.encoder=nobody/nothing")
    assert found == dict.fromkeys(ALL, REUSE) | dict.fromkeys((TEXT, LABELS, TAUGHT), waiting)


def test_a_torn_file_is_seen_by_its_size(distilled, tmp_path, make_workplace):
    place = make_workplace(tmp_path / "torn", distilled.store)
    weights, *_ = sorted(place.store.glob("runs/*/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    found = list(status(place, *SHORT).values())
    why = "the stored one is damaged: its manifest is missing or its files do not have their sizes"
    assert sorted(found) == sorted([*[REUSE] * 4, ("compute", why)])
