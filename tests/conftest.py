"""A small world made of real files: a domain, a text encoder, a frozen teacher, and a folder in which `ckd` runs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings

# Started in the background by a shell, a process ignores SIGINT, and so would all that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A busy machine is slow, and that is no failure. In CI the same examples every time: a change is judged by what it
# changes, while every run elsewhere looks for new ones.
settings.register_profile("unhurried", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the tests of faults may take."""
    parser.addoption(
        "--faults",
        choices=("short", "long"),
        default="short",
        help="short: about a minute of failing disks, kills and flipped bits; long: every one of them",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests counted."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    lines = [
        line
        for report in reports
        for name, line in getattr(report, "user_properties", ())
        if name == COUNTED and report.when == "call"
    ]
    if lines:
        terminalreporter.section("counted")
        for line in lines:
            terminalreporter.write_line(line)


WORDS = ("red", "blue", "steel", "paper", "tape", "pen", "box", "glue", "nail", "ink", "large", "small")
COUNTED = "counted"
"""Name of the property under which a test says how many cases it went through."""
MAIN = "import sys; from ckd.pipeline.cli import main; sys.exit(main())"
GUARD = """
import sys

FORBIDDEN = (
    "transformers", "tokenizers", "ckd.stages.teachers.unisrec.", "ckd.stages.precompute.label",
    "ckd.stages.precompute.search", "ckd.stages.text.encode", "ckd.stages.pretrain.train",
)

class Guard:
    def find_spec(self, name, path=None, target=None):
        if name != "ckd.stages.text.encoder" and name.startswith(FORBIDDEN):
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Guard())
"""
USERS, ITEMS, MAX_LENGTH, TEXT_DIMENSIONS = 60, 40, 8, 16
PIPELINE = """\
store: store
device: cpu
domains:
  tiny: {{path: {raw}, k_core: 1}}
text: {{encoder: {encoder}, max_tokens: 12}}
teachers:
  uni: {{kind: unisrec, checkpoint: {teacher}}}
labels: {{top_k: 7, batch_size: 16, shard_rows: 128}}
students:
  small: {{kind: sasrec, hidden: 8, blocks: 1, max_length: 8}}
"""


@dataclass(frozen=True)
class World:
    """What is made once: raw files, encoder and teacher folders, and a store with the corpus and the text vectors."""

    raw: Path
    encoder: Path
    teacher: Path
    store: Path
    corpus: object
    text: object


Ended = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Workplace:
    """A folder with a ``pipeline.yaml`` and a store of its own, in which `ckd` runs as a process."""

    folder: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def partial(self) -> Path:
        """The folder of the labels that are being written."""
        return next((self.store / "labels" / "teacher=uni" / "domain=tiny").glob(".key=*.partial"))

    @property
    def labels(self) -> Path:
        """The folder of the committed labels."""
        return next((self.store / "labels" / "teacher=uni" / "domain=tiny").glob("key=*"))

    def start(self, *arguments: str, code: str = MAIN, **options: Any) -> subprocess.Popen[str]:
        """Start `ckd` with these arguments; the options are those of Popen."""
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=self.folder,
            text=True,
            env=environment(),
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def ckd(self, *arguments: str, code: str = MAIN, cold: bool = False, **options: Any) -> Ended:
        """Run `ckd` to its end; the options are those of :meth:`start`.

        Without any, and unless it is to import other things or to start ``cold``, it is forked from a process that has
        imported what takes long.
        """
        if not (cold or options) and os.environ.get("PYTHONPATH") == (warm := Warm.process()).path:
            return warm.run(self.folder, arguments, code)
        process = self.start(*arguments, code=code, **options)
        out, err = process.communicate(timeout=120)
        return Ended(arguments, process.returncode, out, err)


def environment() -> dict[str, str]:
    """Return the environment in which the tests run `ckd`."""
    now = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return now | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


class Warm:
    """The process of ``warm.py``."""

    def __init__(self) -> None:
        self.path = os.environ.get("PYTHONPATH")
        program = [sys.executable, str(Path(__file__).with_name("warm.py"))]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(program, env=environment(), stdin=pipe, stdout=pipe, text=True)

    @staticmethod
    @cache
    def process() -> "Warm":
        """Return the one of all tests of this process; it ends with it."""
        return Warm()

    def run(self, folder: Path, arguments: tuple[str, ...], code: str) -> Ended:
        """Run a program to its end in a folder."""
        with tempfile.TemporaryDirectory() as place:
            out, err = Path(place, "out"), Path(place, "err")
            for stream in (out, err):
                stream.touch()
            request = {"folder": str(folder), "arguments": arguments, "environment": environment(), "code": code}
            request |= {"out": str(out), "err": str(err)}
            print(json.dumps(request), file=self._process.stdin, flush=True)
            status = int(self._process.stdout.readline())
            return Ended(arguments, status, out.read_text(), err.read_text())


@dataclass(frozen=True)
class Distilled(Workplace):
    """A workplace with students, and what the `ckd distill` that trained them printed."""

    printed: str


def write_raw(folder: Path) -> None:
    """Write a domain with users longer than the teacher's window, missing fields and two items of one text."""
    draw = np.random.default_rng(7)
    titles: list[str | None] = [" ".join(draw.choice(WORDS, draw.integers(1, 6))) for _ in range(ITEMS)]
    brands: list[str | None] = [str(draw.choice(WORDS)) if draw.random() < 0.7 else None for _ in range(ITEMS)]
    titles[11], brands[11] = titles[30], brands[30]
    titles[5] = brands[5] = None
    ids = [f"item-{number:02d}" for number in range(ITEMS)]
    nothing = pa.nulls(ITEMS, pa.string())
    items = {"item_id": ids, "title": titles, "brand": brands, "categories": nothing, "description": nothing}
    pq.write_table(pa.table(items), folder / "items.parquet")
    lengths = [3, 3, 4, MAX_LENGTH, MAX_LENGTH + 1, MAX_LENGTH + 2, *draw.integers(3, 21, USERS - 6)]
    rows = [
        (f"user-{user:02d}", ids[int(draw.integers(ITEMS))], 1_000 * user + step)
        for user, length in enumerate(lengths)
        for step in range(length)
    ]
    users, chosen, times = zip(*rows, strict=True)
    interactions = {"user_id": users, "item_id": chosen, "timestamp": times}
    pq.write_table(pa.table(interactions), folder / "interactions.parquet")


def write_encoder(folder: Path, special_tokens: bool = True, positions: int = 32) -> Path:
    """Write a BERT of random weights and a WordPiece tokenizer as Hugging Face files."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *WORDS,
        *"abcdefghijklmnopqrstuvwxyz.,",
        *(f"##{c}" for c in "aeinst"),
    ]
    tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if special_tokens:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    torch.manual_seed(3)
    model = BertModel(
        BertConfig(
            vocab_size=len(pieces),
            hidden_size=TEXT_DIMENSIONS,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=positions,
            initializer_range=0.3,
        )
    )
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def write_teacher(folder: Path, encoder: str, seed: int = 5) -> Path:
    """Freeze a UniSRec in which no tensor is at its default."""
    import torch

    from ckd.stages.teachers.frozen import CONFIG, WEIGHTS
    from ckd.stages.teachers.unisrec import NetworkSettings
    from ckd.stages.teachers.unisrec.checkpoint import Config, save_config, save_weights
    from ckd.stages.teachers.unisrec.network import UniSRec

    network = NetworkSettings(hidden=8, experts=3, layers=2, heads=2, inner=12, max_length=MAX_LENGTH)
    model = UniSRec(network, TEXT_DIMENSIONS)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator))
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder / WEIGHTS)
    config = Config(mode="pretrained", network=network, text_dimensions=TEXT_DIMENSIONS, text_encoder=encoder)
    save_config(config, folder / CONFIG)
    return folder


@pytest.fixture
def counted(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """A function that takes a line, to be printed after all tests, about how many cases a test went through."""
    return lambda line: record_property(COUNTED, line)


@pytest.fixture(scope="session")
def make_encoder() -> Callable[..., Path]:
    """A function that writes a text encoder into a folder."""
    return write_encoder


@pytest.fixture(scope="session")
def make_teacher() -> Callable[..., Path]:
    """A function that freezes a small UniSRec of random weights into a folder."""
    return write_teacher


def write_recformer(folder: Path, seed: int = 5, **network: Any) -> Path:
    """Freeze a Recformer in which no tensor is at its default, with a vocabulary learnt from the raw items' words."""
    import torch

    from ckd.stages.teachers.frozen import CONFIG, WEIGHTS
    from ckd.stages.teachers.recformer import NetworkSettings
    from ckd.stages.teachers.recformer.checkpoint import save_weights
    from ckd.stages.teachers.recformer.config import from_settings, save_config
    from ckd.stages.teachers.recformer.files import TOKENIZER
    from ckd.stages.teachers.recformer.network import Recformer
    from ckd.stages.teachers.recformer.vocabulary import learn_vocabulary

    tokenizer = learn_vocabulary([{"title": f"{word} {word}", "brand": "", "category": word} for word in WORDS], 330)
    sizes = {"hidden": 8, "layers": 2, "heads": 2, "inner": 12, "window": 4, "max_tokens": 40, "max_items": 6}
    config = from_settings(NetworkSettings(**(sizes | network), vocabulary=tokenizer.get_vocab_size()))
    model = Recformer(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator))
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, None, folder / WEIGHTS)
    save_config(config, folder / CONFIG)
    tokenizer.save(str(folder / TOKENIZER))
    return folder


@pytest.fixture(scope="session")
def make_recformer() -> Callable[..., Path]:
    """A function that freezes a small Recformer of random weights into a folder."""
    return write_recformer


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The small world; nobody writes into it."""
    import torch

    from ckd.stages.prepare.prepare import prepare_domain
    from ckd.stages.prepare.settings import DomainSettings
    from ckd.stages.teachers.contract import TextVectors
    from ckd.stages.text.encode import encode_corpus
    from ckd.stages.text.encoder import WEIGHTS, locate_encoder
    from ckd.stages.text.settings import TextSettings
    from ckd.storage.corpus import read_corpus
    from ckd.storage.store import Store
    from ckd.storage.vectors import read_vectors

    folder = tmp_path_factory.mktemp("world")
    (folder / "raw").mkdir()
    write_raw(folder / "raw")
    shutil.copytree(folder / "raw", folder / "raw-elsewhere")  # for sources, which may not be a domain's own files
    store = Store(folder / "store")
    corpus = read_corpus(prepare_domain(store, "tiny", DomainSettings(path=folder / "raw", k_core=1)))
    encoder = locate_encoder(str(write_encoder(folder / "encoder")))
    assert encoder is not None
    settings = TextSettings(encoder=str(folder / "encoder"), max_tokens=12)
    vectors = read_vectors(encode_corpus(store, corpus, settings, encoder, torch.device("cpu")))
    text = TextVectors(vectors, encoder.digests[WEIGHTS])
    teacher = write_teacher(folder / "teacher", text.encoder)
    return World(folder / "raw", folder / "encoder", teacher, store.root, corpus, text)


@pytest.fixture(scope="session")
def make_workplace(world: World) -> Callable[..., Workplace]:
    """A function that makes a workplace of a folder: configuration, and a copy of a store (the prepared one)."""

    def make(folder: Path, store: Path = world.store) -> Workplace:
        folder.mkdir(parents=True, exist_ok=True)
        text = PIPELINE.format(raw=world.raw, encoder=world.encoder, teacher=world.teacher)
        (folder / "pipeline.yaml").write_text(text)
        shutil.copytree(store, folder / "store")
        return Workplace(folder)

    return make


@pytest.fixture
def workplace(tmp_path: Path, make_workplace: Callable[..., Workplace]) -> Workplace:
    """A configuration and a store that holds the corpus and the text vectors, but no labels."""
    return make_workplace(tmp_path / "workplace")


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory, make_workplace: Callable[..., Workplace]) -> Workplace:
    """A workplace after an undisturbed `ckd precompute` with many small shards; nobody writes into it."""
    place = make_workplace(tmp_path_factory.mktemp("labelled") / "workplace")
    done = place.ckd("precompute", "--set", "labels.shard_rows=8")
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="session")
def distilled(
    tmp_path_factory: pytest.TempPathFactory, labelled: Workplace, make_workplace: Callable[..., Workplace]
) -> Distilled:
    """A labelled workplace after an undisturbed `ckd distill` of three epochs; nobody writes into it."""
    place = make_workplace(tmp_path_factory.mktemp("distilled") / "workplace", labelled.store)
    done = place.ckd("distill", "--set", "distill.epochs=3")
    assert done.returncode == 0, done.stderr
    return Distilled(place.folder, done.stdout)


@pytest.fixture(scope="session")
def guard() -> str:
    """Code that forbids its process to import whatever could open a teacher or a text encoder."""
    return GUARD
