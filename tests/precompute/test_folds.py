"""Labels out of fold: each training label is that of the teacher of its user's fold, asked by itself."""

import numpy as np
import pytest
import torch

from ckd.stages.precompute.address import label_address
from ckd.stages.precompute.label import label_corpus
from ckd.stages.precompute.settings import LabelSettings
from ckd.stages.teachers import recformer, unisrec
from ckd.stages.teachers.contract import Opening, RankedLists
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS, digests
from ckd.stages.teachers.recformer.files import TOKENIZER
from ckd.storage.corpus import SPLITS
from ckd.storage.errors import UserError
from ckd.storage.labels import fold_of_rows, read_labels
from ckd.storage.store import Store
from ckd.storage.vectors import read_vectors

CPU = torch.device("cpu")
OF = 3


class Interrupted(Exception):
    """Stands for whatever ends a process between two shards."""


@pytest.fixture(scope="module")
def frozen(tmp_path_factory, make_teacher, world):
    """Files of four teachers: of all users, and of each fold."""
    folder = tmp_path_factory.mktemp("teachers")
    made = [make_teacher(folder / str(number), world.text.encoder, seed=number) for number in range(OF + 1)]
    return [{name: each / name for name in (CONFIG, WEIGHTS)} for each in made]


@pytest.fixture(scope="module")
def label(world, frozen, tmp_path_factory):
    """A function that labels the world out of fold, or (teacher) by one of the teachers alone."""
    folder = tmp_path_factory.mktemp("labels")

    def run(place, teacher=None, advance=lambda _rows, _bytes: None, reuse=lambda _rows: None, **settings):
        chosen = LabelSettings(**({"top_k": 7, "shard_rows": 200} | settings))

        def opener(number):
            return lambda corpus: unisrec.open_teacher(Opening(None, frozen[number], corpus, world.text, CPU))

        folds = [] if teacher is not None else [opener(number) for number in range(1, OF + 1)]
        of_folds = [digests(frozen[number]) for number in range(1, OF + 1)] if folds else []
        first = teacher or 0
        named = ("uni", "tiny", chosen, "unisrec", digests(frozen[first]), {}, world.corpus.key, "text", of_folds)
        return label_corpus(
            Store(folder / place),
            label_address(*named),
            world.corpus,
            chosen,
            lambda: opener(first)(world.corpus),
            CPU,
            advance,
            reuse,
            lambda: {"parameters": 5},
            folds,
        )

    return run


@pytest.fixture(scope="module")
def folded(label):
    return label("folded")


@pytest.fixture(scope="module")
def alone(label):
    """What each of the four teachers says of everything."""
    return [label(f"alone-{number}", teacher=number) for number in range(OF + 1)]


def same_rows(found, expected):
    for name, column in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), column, err_msg=name)


def test_every_row_is_that_of_the_teacher_which_it_is_of(folded, alone, world):
    folded.verify()
    corpus = world.corpus
    labels = read_labels(folded, corpus)
    numbers = fold_of_rows(folded, labels, corpus)
    assert len(labels) == corpus.n_positions
    assert set(numbers.tolist()) == {0, 1, 2, 3}
    own = corpus.folds(OF)
    for number, artifact in enumerate(alone):
        mine = np.flatnonzero(numbers == number)
        assert {SPLITS[code] == "train" for code in labels.split[mine]} == {number > 0}
        assert not number or set(own[labels.user[mine]]) == {number}
        said = read_labels(artifact, corpus)
        same_rows(labels.take(mine), said.take(mine))
        assert not np.array_equal(labels.logsumexp, said.logsumexp)


def test_the_rows_are_in_order_and_those_of_every_position(folded, world):
    labels = read_labels(folded, world.corpus)
    for name, column in vars(world.corpus.positions()).items():
        np.testing.assert_array_equal(getattr(labels, name), column, err_msg=name)


def test_the_vectors_of_each_teacher_stand_beside_them_and_score_what_is_stored(folded, alone, world):
    labels = read_labels(folded, world.corpus)
    vectors = [read_vectors(folded, number) for number in range(OF + 1)]
    for found, artifact in zip(vectors, alone, strict=True):
        np.testing.assert_array_equal(found, read_vectors(artifact))
    assert read_vectors(folded, OF + 1) is None
    for row, number in enumerate(fold_of_rows(folded, labels, world.corpus)):
        scores = vectors[number].astype(np.float64) @ labels.state[row].astype(np.float64)
        stored = scores[labels.items[row]] - labels.logsumexp[row]
        np.testing.assert_allclose(labels.logprobs[row], stored, rtol=0, atol=2.0**-10 + 1e-5)


def test_the_manifest_says_how_many_folds_there_are_and_how_many_users_in_each(folded, world):
    sizes = np.bincount(world.corpus.folds(OF), minlength=OF + 1)[1:].tolist()
    assert folded.facts == {"parameters": 5, "folds": OF, "users_of_folds": sizes}


def test_labels_of_one_teacher_know_of_no_folds(alone):
    assert alone[0].facts == {"parameters": 5}
    assert [name for name in alone[0].files if "vectors" in name] == ["vectors.parquet"]


def test_the_batch_size_changes_no_byte_and_the_cut_into_shards_no_row(label, folded, world):
    stored = {name: receipt.sha256 for name, receipt in folded.files.items()}
    batches = label("batches", batch_size=3)
    assert {name: receipt.sha256 for name, receipt in batches.files.items()} == stored
    cut = label("cut", shard_rows=8)
    assert len(cut.files) > len(folded.files)
    same_rows(read_labels(cut, world.corpus), read_labels(folded, world.corpus))


def test_interrupted_and_started_again_it_ends_with_the_same_bytes(label, folded):
    def stop(_rows, _bytes, left=[2]):  # noqa: B006
        left[0] -= 1
        if not left[0]:
            raise Interrupted

    with pytest.raises(Interrupted):
        label("interrupted", advance=stop)
    reused = []
    again = label("interrupted", reuse=reused.append)
    assert len(reused) == 2
    assert {name: receipt.sha256 for name, receipt in again.files.items()} == {
        name: receipt.sha256 for name, receipt in folded.files.items()
    }


@pytest.mark.parametrize("splits", [("train",), ("train", "test")])
def test_only_the_positions_of_the_chosen_splits_are_stored(label, folded, world, splits):
    found = read_labels(label("-".join(splits), splits=splits), world.corpus)
    labels = read_labels(folded, world.corpus)
    chosen = np.isin(labels.split, [SPLITS.index(split) for split in splits])
    same_rows(found, labels.take(np.flatnonzero(chosen)))


def test_a_recformer_whose_passes_are_of_single_histories_says_the_same(world, make_recformer, tmp_path):
    """Its passes hold other histories when it labels a fold alone, which moves no more than the last bits."""
    corpus = world.corpus
    folders = [make_recformer(tmp_path / str(number), seed=number) for number in range(3)]
    files = [{name: each / name for name in (CONFIG, WEIGHTS, TOKENIZER)} for each in folders]
    settings, chosen = recformer.Settings(checkpoint="x", precision="float32"), LabelSettings(top_k=5, shard_rows=100)

    def opener(number, *splits):
        return lambda users: recformer.open_teacher(Opening(settings, files[number], users, None, CPU, splits=splits))

    def labels(place, first, folds=()):
        address = label_address("rec", "tiny", chosen, "recformer", {"a": place}, {}, corpus.key, None)
        opened = (lambda: first(corpus), CPU)
        made = label_corpus(Store(tmp_path / place), address, corpus, chosen, *opened, open_folds=folds)
        return made, read_labels(made, corpus)

    made, found = labels("folded", opener(0, "valid", "test"), [opener(1, "train"), opener(2, "train")])
    numbers = fold_of_rows(made, found, corpus)
    for number in range(3):
        mine = np.flatnonzero(numbers == number)
        _, said = labels(f"alone-{number}", opener(number, *SPLITS))
        for name in ("logsumexp", "target_logprob", "entropy", "state"):
            close = {"rtol": 2.0**-10, "atol": 1e-4}
            np.testing.assert_allclose(getattr(found, name)[mine], getattr(said, name)[mine], **close, err_msg=name)


def test_ranked_lists_out_of_fold_are_refused_in_one_line(world, tmp_path):
    empty = RankedLists(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0), "teacher.parquet")
    chosen = LabelSettings()
    address = label_address("lists", "tiny", chosen, "mine", {}, {}, world.corpus.key, None)
    opened = (lambda: empty, CPU)
    with pytest.raises(UserError, match=r"^teacher\.parquet: ranked lists are not given out of fold; "):
        label_corpus(Store(tmp_path), address, world.corpus, chosen, *opened, open_folds=[lambda _: empty] * 2)
