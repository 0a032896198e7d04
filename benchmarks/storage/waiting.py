"""The share of a training step that is spent waiting for labels: held in memory, on the disk, and on a cold disk.

    ckd -c benchmarks/quality/two.yaml precompute
    python benchmarks/storage/waiting.py benchmarks/quality/two.yaml --domain office

A SASRec learns from all teachers of a domain, as `ckd distill` would train it. What is timed as waiting is every
look-up of items, log-probabilities and states of a batch (`Opinion.at`), and having them read ahead (`Opinion.expect`);
what is timed as a step is everything from one step of the optimiser to the next, without validation. All ways take
turns, an epoch each. Cold means: whatever the system holds of the file is dropped before the epoch, so that all of it
is read again; that is the worst case of labels that are larger than memory.
"""

import argparse
import ctypes
import mmap
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from ckd.pipeline.config.load import load_configuration
from ckd.stages.distill.opinion import Opinion
from ckd.stages.distill.run import prepare_lesson
from ckd.stages.distill.settings import DistillSettings
from ckd.stages.distill.train import Lesson, train
from ckd.stages.students import STUDENTS
from ckd.stages.students.contract import side_by_side
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus, read_corpus
from ckd.storage.store import Store

_PAGEOUT = 21
"""MADV_PAGEOUT, which Python's mmap does not name."""
WAYS = ("in memory", "streamed", "streamed, cold")


@dataclass
class Clock:
    """Seconds of look-ups and of steps since :meth:`restart`."""

    waited: float = 0.0
    steps: list[float] = field(default_factory=list)
    last: float = field(default_factory=time.perf_counter)

    def restart(self) -> None:
        """Begin again at zero."""
        self.waited, self.steps, self.last = 0.0, [], time.perf_counter()

    def stepped(self, *_: object) -> None:
        """End a step, begin the next."""
        now = time.perf_counter()
        self.steps.append(now - self.last)
        self.last = now

    def timed(self, look_up: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same look-up with its time added."""

        def timed(*arguments: Any) -> Any:
            began = time.perf_counter()
            found = look_up(*arguments)
            self.waited += time.perf_counter() - began
            return found

        return timed


def main() -> None:
    """Take turns, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--domain", default="office")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    configuration = load_configuration(chosen.file, tuple(chosen.set))
    artifact, labels = _stored(Store(configuration.store), chosen.domain)
    corpus = read_corpus(artifact)
    clock = Clock()
    Opinion.at, Opinion.expect = staticmethod(clock.timed(Opinion.at)), clock.timed(Opinion.expect)
    register_optimizer_step_post_hook(clock.stepped)
    lessons = {
        way: _lesson(corpus, artifact, labels, configuration.distill, inside=way == "in memory") for way in WAYS[:2]
    }
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(chosen.rounds):
        for way in WAYS:
            lesson, settings = lessons[way.removesuffix(", cold")]
            if way.endswith("cold"):
                _forget(lesson)
            clock.restart()
            _epoch(corpus, lesson, settings)
            # The first step begins before the windows are cut, and warms up.
            found[way].append((clock.waited / sum(clock.steps), median(clock.steps[1:])))
    held = ", ".join(f"{name} {each.inputs['top_k']} items" for name, each in labels.items())
    print(f"load {os.getloadavg()[0]:.1f}, {chosen.threads} threads; {chosen.domain}: {held}\n")
    print("| labels | share of a step spent waiting, median (least .. most) | ms of a step, median |\n|---|---:|---:|")
    for way, turns in found.items():
        shares, steps = zip(*turns, strict=True)
        spread = f"{100 * median(shares):.1f} % ({100 * min(shares):.1f} .. {100 * max(shares):.1f})"
        print(f"| {way} | {spread} | {1e3 * median(steps):.1f} |")


def _stored(store: Store, domain: str) -> tuple[Artifact, dict[str, Artifact]]:
    """Return the corpus and, of each teacher, the labels of a domain with the most items."""
    every = [each for each in store.all("labels") if each.path.parent.name == f"domain={domain}"]
    ordered = sorted(every, key=lambda found: found.inputs["top_k"])
    labels = {each.path.parents[1].name.split("=")[1]: each for each in ordered}
    if not labels:
        raise SystemExit(f"the store has no labels of {domain}; run `ckd precompute`")
    (key,) = {each.inputs["corpus"] for each in labels.values()}
    return store.with_key("corpus", key), labels


def _lesson(
    corpus: Corpus, artifact: Artifact, labels: dict[str, Artifact], settings: DistillSettings, inside: bool
) -> tuple[Lesson, DistillSettings]:
    """Return what is taught, and the settings of an epoch of it that serves every sequence."""
    limit = {"labels_in_memory": 1e3 if inside else 0.0, "epochs": 1, "curriculum": {"pacing": "none"}}
    settings = DistillSettings.model_validate({**settings.model_dump(), **limit})
    return prepare_lesson(corpus, artifact, labels, settings, torch.device("cpu")), settings


def _forget(lesson: Lesson) -> None:
    """Drop what the system holds of the mapped files: write them out, then reclaim their pages (Linux 5.4)."""
    os.sync()
    libc = ctypes.CDLL(None, use_errno=True)
    for opinion in lesson.teaching._opinions:
        start = opinion.items.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
        length = len(opinion.items) * opinion.items.stride(0) * opinion.items.element_size()
        if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _PAGEOUT):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        resident = (ctypes.c_ubyte * -(-length // mmap.PAGESIZE))()
        libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(length), resident)
        held = sum(page & 1 for page in resident) / len(resident)
        if held > 0.01:
            raise SystemExit(f"{held:.0%} of the labels are still in memory: no cold disk here")


def _epoch(corpus: Corpus, lesson: Lesson, settings: DistillSettings) -> None:
    kind = STUDENTS.load("sasrec")
    torch.manual_seed(0)
    sizes, domains = kind.Settings(), side_by_side([corpus])
    train(kind.build(sizes, domains), domains, [lesson], sizes, settings, 0)


if __name__ == "__main__":
    main()
