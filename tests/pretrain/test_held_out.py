"""The two held-out targets of every user do not train a teacher, whatever its kind: poisoned, they change no weight."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save

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
from ckd.stages.teachers.unisrec import AdaptSettings, NetworkSettings
from ckd.stages.teachers.unisrec import training as unisrec
from ckd.stages.teachers.unisrec.checkpoint import Config, save_config, save_weights
from ckd.stages.teachers.unisrec.network import UniSRec
from ckd.storage.artifact import Store
from ckd.storage.files import sha256_file
from ckd.storage.keys import Address
from ckd.storage.progress import training_states

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
