"""What a teacher is not to be trained on, whatever its kind: poisoned, it changes no weight.

That is the two held-out targets of every user, and for the teacher of a fold all that the fold's users ever did.
"""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save

from ckd.stages.pretrain.train import adapt_teacher
from ckd.stages.teachers import recformer as recformer_kind
from ckd.stages.teachers.contract import DomainData, Job
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS
from ckd.stages.teachers.recformer import training as recformer
from ckd.stages.teachers.recformer.checkpoint import save_weights as save_recformer
from ckd.stages.teachers.recformer.config import from_settings
from ckd.stages.teachers.recformer.config import save_config as save_recformer_config
from ckd.stages.teachers.recformer.files import TOKENIZER
from ckd.stages.teachers.recformer.network import Recformer
from ckd.stages.teachers.recformer.vocabulary import learn_vocabulary
from ckd.stages.teachers.sasrec import TrainSettings
from ckd.stages.teachers.sasrec import training as sasrec
from ckd.stages.teachers.unisrec import AdaptSettings, NetworkSettings
from ckd.stages.teachers.unisrec import training as unisrec
from ckd.stages.teachers.unisrec.checkpoint import Config, save_config, save_weights
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.storage.errors import UserError
from ckd.storage.files import sha256_file
from ckd.storage.folds import Fold
from ckd.storage.keys import Address
from ckd.storage.progress import training_states
from ckd.storage.store import Store

CPU = torch.device("cpu")
EPOCHS = 6
TEXTS = ("red tape", "blue pen", "steel box", "paper nail", "glue ink", "tin")


class Kind(NamedTuple):
    """How a kind of teacher is adapted: its module ``training``, settings of EPOCHS epochs, files to start from."""

    training: ModuleType
    settings: object
    start: Callable


def fresh_unisrec(folder, text):
    network = NetworkSettings(hidden=16, experts=2, layers=1, inner=16, max_length=6, temperature=0.3)
    torch.manual_seed(0)
    folder.mkdir()
    save_weights(UniSRec(network, text.vectors.shape[1]), folder / WEIGHTS)
    config = Config(mode="pretrained", network=network, text_dimensions=16, text_encoder=text.encoder)
    save_config(config, folder / CONFIG)
    return {name: folder / name for name in (CONFIG, WEIGHTS)}


def fresh_recformer(folder, _):
    tokenizer = learn_vocabulary([{"title": text, "brand": text, "category": ""} for text in TEXTS], 320)
    sizes = {"hidden": 16, "layers": 2, "heads": 2, "inner": 16, "window": 8, "max_tokens": 48, "max_items": 4}
    config = from_settings(recformer_kind.NetworkSettings(**sizes, vocabulary=tokenizer.get_vocab_size()))
    torch.manual_seed(0)
    folder.mkdir()
    save_recformer(Recformer(config), None, folder / WEIGHTS)
    save_recformer_config(config, folder / CONFIG)
    tokenizer.save(str(folder / TOKENIZER))
    return {name: folder / name for name in (CONFIG, WEIGHTS, TOKENIZER)}


COMMON = {"epochs": EPOCHS, "patience": EPOCHS, "batch_size": 8, "learning_rate": 0.02, "dropout": 0.1}
RECFORMER = COMMON | {"learning_rate": 0.004, "warmup": 2, "second_epochs": 0}
KINDS = {
    "unisrec": Kind(unisrec, AdaptSettings(**COMMON), fresh_unisrec),
    "unisrec with item IDs": Kind(unisrec, AdaptSettings(**COMMON, mode="transductive"), fresh_unisrec),
    # A second stage starts from the best epoch, which validation may choose.
    "recformer": Kind(recformer, recformer_kind.AdaptSettings(**RECFORMER), fresh_recformer),
}


class Adapted(NamedTuple):
    """What an adaptation left: digests of the frozen teacher's files and of the network after each epoch, the curve."""

    frozen: dict
    curve: list
    networks: list


def poisoned(corpus, *back):
    """The same corpus with the items that many places from the end of every sequence replaced by others."""
    sequence = corpus.sequence.copy()
    for places in (corpus.offsets[1:] - one for one in back):
        sequence[places] = (sequence[places] + 11) % corpus.n_items
    return replace(corpus, sequence=sequence)


@pytest.fixture(scope="module", params=KINDS)
def adapted(request, tmp_path_factory, circle):
    """A function that adapts a teacher of some kind to a corpus."""
    kind, folder = KINDS[request.param], tmp_path_factory.mktemp("held-out")
    start = kind.start(folder / "start", circle.text)
    store = Store(folder / "store")

    def adapt(corpus):
        curve, networks = [], []
        with store.draft(Address("teachers", {"a": 1})) as draft:

            def keep(row):
                path = draft.partial / next(iter(training_states(draft).values()))
                networks.append(sha256(save(torch.load(path, weights_only=True)["model"])).hexdigest())
                curve.append({name: value for name, value in row.items() if name != "seconds"})

            kind.training.adapt_into(Job(draft, kind.settings, CPU, keep), start, DomainData(corpus, circle.text))
            frozen = {name: sha256_file(draft.partial / name) for name in start}
        return Adapted(frozen, curve, networks)

    return adapt


@pytest.fixture(scope="module")
def plain(adapted, circle):
    return adapted(circle.corpus)


def best(curve):
    return int(np.argmax([row["ndcg@10"] for row in curve]))


def losses(curve):
    return [row["loss"] for row in curve[1:]]


def test_the_world_is_one_in_which_adaptation_learns(plain):
    assert len(plain.curve) == len(plain.networks) == EPOCHS + 1
    assert best(plain.curve) > 0
    assert len(set(plain.networks)) == EPOCHS + 1


def test_other_test_targets_change_no_bit(adapted, circle, plain):
    other = adapted(poisoned(circle.corpus, 1))
    assert other.frozen == plain.frozen
    assert other.curve[1:] == plain.curve[1:]  # the first has no loss: NaN


def test_other_validation_targets_choose_an_epoch_and_train_nothing(adapted, circle, plain):
    other = adapted(poisoned(circle.corpus, 2))
    assert losses(other.curve) == losses(plain.curve)
    assert other.networks == plain.networks
    assert [row["ndcg@10"] for row in other.curve] != [row["ndcg@10"] for row in plain.curve]
    assert (other.frozen == plain.frozen) == (best(other.curve) == best(plain.curve))


def test_another_last_training_item_changes_the_weights(adapted, circle, plain):
    """The poison of the two tests above would be seen if it stood where training looks."""
    other = adapted(poisoned(circle.corpus, 3))
    assert losses(other.curve)[0] != losses(plain.curve)[0]
    assert other.networks[0] == plain.networks[0]
    assert set(other.networks[1:]).isdisjoint(plain.networks[1:])


# --- the users of a fold

FOLD = Fold(2, 3)
SHORT = {"epochs": 3, "patience": 3, "batch_size": 8, "folds": FOLD.of}
FOLDED = {
    "unisrec": Kind(unisrec, AdaptSettings(**SHORT, learning_rate=0.02), fresh_unisrec),
    "recformer": Kind(
        recformer,
        recformer_kind.AdaptSettings(**SHORT, learning_rate=0.004, warmup=2, second_epochs=1, contrast_epochs=1),
        fresh_recformer,
    ),
    "sasrec": Kind(sasrec, TrainSettings(**SHORT, hidden=8, blocks=1, learning_rate=0.01), lambda *_: {}),
}


def other_life(corpus, fold):
    """The same users, of whom those of a fold have longer sequences of other items."""
    poisoned_users = corpus.folds(fold.of) == fold.number
    assert 0 < poisoned_users.sum() < corpus.n_users
    sequences = [
        np.concatenate([(one + 11) % corpus.n_items, one[::-1]]) if poison else one
        for poison, one in zip(poisoned_users, map(corpus.sequence_of, range(corpus.n_users)), strict=True)
    ]
    offsets = np.concatenate([[0], np.cumsum(list(map(len, sequences)))]).astype(np.int64)
    popularity = corpus.items.column_names.index("popularity")
    items = corpus.items.set_column(popularity, "popularity", [np.arange(corpus.n_items)])
    return replace(corpus, items=items, offsets=offsets, sequence=np.concatenate(sequences).astype(np.int32))


@pytest.fixture(scope="module", params=FOLDED)
def adapted_outside(request, tmp_path_factory, circle):
    """A function that adapts the teacher of a fold of a corpus; returns digests of its files, its curve, its facts."""
    kind, folder = FOLDED[request.param], tmp_path_factory.mktemp("fold")
    start = kind.start(folder / "start", circle.text)

    def adapt(name, corpus, fold=FOLD):
        curve = []

        def keep(row):
            curve.append(repr({name: value for name, value in row.items() if name != "seconds"}))

        store, domain = Store(folder / name), DomainData(corpus, circle.text)
        made = adapt_teacher(
            store, Address("teachers", {"a": 1}), kind.training, kind.settings, start, domain, CPU, keep, fold=fold
        )
        digests = {name: receipt.sha256 for name, receipt in made.files.items() if name != "curve.parquet"}
        return digests, curve, made.facts

    return adapt


def test_nothing_that_the_users_of_a_fold_did_reaches_its_teacher(adapted_outside, circle):
    """Neither the loss nor the choice of the epoch, nor what is counted of the items."""
    mine = adapted_outside("mine", circle.corpus)
    assert adapted_outside("poisoned", other_life(circle.corpus, FOLD)) == mine
    digests, curve, _ = adapted_outside("seen", other_life(circle.corpus, Fold(1, FOLD.of)))
    assert digests != mine[0], "the poison would be seen where training looks"
    assert curve[-1] != mine[1][-1]
    assert adapted_outside("whole", circle.corpus, None)[0] != mine[0]


def test_the_manifest_says_which_fold_and_how_many_users_were_trained_on(adapted_outside, circle):
    _, _, facts = adapted_outside("mine", circle.corpus)
    assert facts["fold"] == {"number": 2, "of": 3}
    assert facts["users"] == int((circle.corpus.folds(3) != 2).sum())
    assert not {"fold", "users"} & adapted_outside("whole", circle.corpus, None)[2].keys()


def test_a_fold_of_all_users_is_refused_in_one_line(adapted_outside, circle):
    alone = circle.corpus.inside(Fold(1, 3))
    line = r"^nobody to train on: all \d+ users of corpus circle are in fold 1 of 3, whose teacher sees the others "
    with pytest.raises(UserError, match=line):
        adapted_outside("nobody", alone, Fold(1, 3))
