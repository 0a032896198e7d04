"""Two domains, one with whole numbers for identifiers, and students that were really trained on them."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from ckd.stages.distill.address import run_address
from ckd.stages.distill.run import train_run
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.evaluate.settings import EvaluateSettings
from ckd.stages.export.student import Exported, exported
from ckd.stages.students.contract import Student, by_name
from ckd.stages.students.sasrec import Settings
from ckd.stages.students.trained import load_student
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus, read_corpus, write_corpus
from ckd.storage.keys import Address
from ckd.storage.store import Store

LONGEST = 6
"""Items that the students see; many sequences are longer."""


@dataclass(frozen=True)
class Trained:
    """A store with a student of domain ``a`` and one of ``a`` and ``b``, and how they are read."""

    store: Store
    alone: Artifact
    joint: Artifact
    corpora: dict[str, Corpus]

    def student(self, run: Artifact) -> Student:
        return load_student(run, self.of(run))

    def of(self, run: Artifact) -> dict[str, Corpus]:
        names = list(run.inputs["domains"])
        return {name: self.corpora[name] for name in names}

    def exported(self, run: Artifact, name: str, student: Student | None = None) -> Exported:
        corpora = self.of(run)
        domains = by_name(corpora)
        return exported(run, self.student(run) if student is None else student, name, domains[name])


def _sequences(seed: int, users: int, n_items: int, longest: int) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [
        draw.integers(0, n_items, length).tolist() for length in [3, longest, *draw.integers(3, longest, users - 2)]
    ]


def _commit(store: Store, name: str, sequences: Sequence[Sequence[int]], ids: pa.Array, users: pa.Array) -> Corpus:
    items = {"item": pa.array(np.arange(len(ids), dtype=np.int32)), "item_id": ids}
    items |= {"title": pa.array([None, *(f"{name}, title {code}" for code in range(1, len(ids)))], pa.string())}
    items |= {"brand": [f"brand {code % 3}" for code in range(len(ids))]}
    items |= {field: pa.nulls(len(ids), pa.string()) for field in ("categories", "description")}
    items |= {"popularity": pa.array(np.zeros(len(ids), np.int32))}
    lists = pa.array(sequences, pa.list_(pa.int32()))
    times = pa.array([list(range(len(sequence))) for sequence in sequences], pa.list_(pa.int64()))
    with store.draft(Address("corpus", {"of": name})) as draft:
        write_corpus(draft, pa.table(items), pa.table({"user_id": users, "items": lists, "timestamps": times}))
        return read_corpus(draft.commit())


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    store = Store(tmp_path_factory.mktemp("served") / "store")
    corpora = {
        "a": _commit(
            store,
            "a",
            _sequences(0, 40, 11, 9),
            pa.array([f"i{code:02}" for code in range(11)]),
            pa.array([f"u{user:02}" for user in range(40)]),
        ),
        "b": _commit(
            store, "b", _sequences(1, 30, 17, 12), pa.array([7 * code for code in range(17)]), pa.array(range(100, 130))
        ),
    }
    runs = []
    for names in (["a"], ["a", "b"]):
        scope = "per_domain" if len(names) == 1 else "joint"
        settings = Settings(hidden=8, blocks=2, max_length=LONGEST, scope=scope)
        distill, mine = DistillSettings(epochs=2), {name: corpora[name] for name in names}
        address = run_address("small", settings, distill, False, 0, {name: corpora[name].key for name in names}, {})
        cpu = torch.device("cpu")
        runs.append(train_run(store, address, mine, settings, distill, EvaluateSettings(), None, 0, cpu))
    return Trained(store, *runs, corpora)


@pytest.fixture(scope="session")
def run_example() -> Callable[[Path], list[list[str]]]:
    """A function that runs the example of an export's README in its folder and returns the words it prints."""

    def run(folder: Path) -> list[list[str]]:
        (program,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
        assert len(program.splitlines()) <= 14
        done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [line.split() for line in done.stdout.splitlines()]

    return run


@pytest.fixture(scope="session")
def scores_of() -> Callable[..., torch.Tensor]:
    """A function of an export and histories as lists of codes: the scores that the student's evaluation gives them."""

    def scores(found: Exported, histories: Sequence[Sequence[int]]) -> torch.Tensor:
        from dataclasses import replace

        lengths = np.array([len(history) for history in histories])
        corpus = replace(
            found.domain.corpus,
            user_ids=pa.array(range(len(histories))),
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            sequence=np.concatenate(histories).astype(np.int32),
        )
        scorer = found.student.scorer(replace(found.domain, corpus=corpus))
        return scorer(np.arange(len(histories), dtype=np.int32), lengths.astype(np.int32))

    return scores
