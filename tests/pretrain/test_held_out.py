"""The two held-out targets of every user do not train a teacher, whatever its kind: poisoned, they change no weight."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save

from ckd.stages.teachers import recformer as recformer_kind
from ckd.stages.teachers.contract import DomainData, Job, TextVectors
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
from ckd.storage.corpus import Corpus
from ckd.storage.files import sha256_file
from ckd.storage.keys import Address
from ckd.storage.progress import training_states

CPU = torch.device("cpu")
N_ITEMS, USERS, EPOCHS = 30, 60, 6
COLOURS, THINGS = ("red", "blue", "steel", "paper", "glue"), ("tape", "pen", "box", "nail", "ink", "tin")


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
    texts = [{"title": f"{colour} {thing}", "brand": thing, "category": ""} for colour in COLOURS for thing in THINGS]
    tokenizer = learn_vocabulary(texts, 320)
    sizes = {"hidden": 16, "layers": 2, "heads": 2, "inner": 16, "window": 8, "max_tokens": 48, "max_items": 4}
    network = recformer_kind.NetworkSettings(**sizes, vocabulary=tokenizer.get_vocab_size())
    torch.manual_seed(0)
    folder.mkdir()
    save_recformer(Recformer(from_settings(network)), None, folder / WEIGHTS)
    save_recformer_config(from_settings(network), folder / CONFIG)
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


@pytest.fixture(scope="module")
def circle():
    """Users walk around a circle of items, each with a text of its own."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(5, 12, USERS)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    sequence = np.concatenate([(draw.integers(N_ITEMS) + np.arange(n)) % N_ITEMS for n in lengths]).astype(np.int32)
    items = {
        "item": np.arange(N_ITEMS, dtype=np.int32),
        "item_id": [f"item-{code:02d}" for code in range(N_ITEMS)],
        "title": [f"{COLOURS[code % 5]} {THINGS[code // 5]}" for code in range(N_ITEMS)],
        "brand": [THINGS[code % 6] for code in range(N_ITEMS)],
        "categories": pa.nulls(N_ITEMS, pa.string()),
        "description": pa.nulls(N_ITEMS, pa.string()),
        "popularity": np.ones(N_ITEMS, np.int64),
    }
    return Corpus("circle", pa.table(items), pa.array([f"u{n:03d}" for n in range(USERS)]), offsets, sequence)


def poisoned(corpus, *back):
    """The same corpus with the items that many places from the end of every sequence replaced by others."""
    sequence = corpus.sequence.copy()
    for places in (corpus.offsets[1:] - one for one in back):
        sequence[places] = (sequence[places] + 11) % N_ITEMS
    return replace(corpus, sequence=sequence)


@pytest.fixture(scope="module", params=KINDS)
def adapted(request, tmp_path_factory):
    """A function that adapts a teacher of some kind to a corpus."""
    kind, folder = KINDS[request.param], tmp_path_factory.mktemp("held-out")
    vectors = np.random.default_rng(1).normal(size=(N_ITEMS, 16)).astype(np.float32)
    text = TextVectors(vectors, "encoder")
    start = kind.start(folder / "start", text)
    store = Store(folder / "store")

    def adapt(corpus):
        curve, networks = [], []
        with store.draft(Address("teachers", {"a": 1})) as draft:

            def keep(row):
                path = draft.partial / next(iter(training_states(draft).values()))
                networks.append(sha256(save(torch.load(path, weights_only=True)["model"])).hexdigest())
                curve.append({name: value for name, value in row.items() if name != "seconds"})

            kind.training.adapt_into(Job(draft, kind.settings, CPU, keep), start, DomainData(corpus, text))
            frozen = {name: sha256_file(draft.partial / name) for name in start}
        return Adapted(frozen, curve, networks)

    return adapt


@pytest.fixture(scope="module")
def plain(adapted, circle):
    return adapted(circle)


def best(curve):
    return int(np.argmax([row["ndcg@10"] for row in curve]))


def losses(curve):
    return [row["loss"] for row in curve[1:]]


def test_the_world_is_one_in_which_adaptation_learns(plain):
    assert len(plain.curve) == len(plain.networks) == EPOCHS + 1
    assert best(plain.curve) > 0
    assert len(set(plain.networks)) == EPOCHS + 1


def test_other_test_targets_change_no_bit(adapted, circle, plain):
    other = adapted(poisoned(circle, 1))
    assert other.frozen == plain.frozen
    assert other.curve[1:] == plain.curve[1:]  # the first has no loss: NaN


def test_other_validation_targets_choose_an_epoch_and_train_nothing(adapted, circle, plain):
    other = adapted(poisoned(circle, 2))
    assert losses(other.curve) == losses(plain.curve)
    assert other.networks == plain.networks
    assert [row["ndcg@10"] for row in other.curve] != [row["ndcg@10"] for row in plain.curve]
    assert (other.frozen == plain.frozen) == (best(other.curve) == best(plain.curve))


def test_another_last_training_item_changes_the_weights(adapted, circle, plain):
    """The poison of the two tests above would be seen if it stood where training looks."""
    other = adapted(poisoned(circle, 3))
    assert losses(other.curve)[0] != losses(plain.curve)[0]
    assert other.networks[0] == plain.networks[0]
    assert set(other.networks[1:]).isdisjoint(plain.networks[1:])
