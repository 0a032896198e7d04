"""What the number of stored items and the states are worth: quality against bytes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from runs import Found
from tables import RESULTS, cells_of
from variants import NONE, KeptItems

from ckd.pipeline.plan import Plan
from ckd.stages.distill.controls import cut_to
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus, read_corpus
from ckd.storage.keys import Address
from ckd.storage.labels import LabelBlock, read_labels, write_part
from ckd.storage.store import Store
from ckd.storage.vectors import read_vectors, write_vectors

_MEGABYTE = 1e6


def print_items(plan: Plan, found: Found, variants: Sequence[KeptItems]) -> None:
    """Print, for every domain and student, quality by stored items and states beside the MB of all its labels."""
    print(f"| domain | model | k | states | MB | {' | '.join(RESULTS)} |")
    print("|---|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for domain in plan.configuration.domains:
        megabytes = _megabytes(plan, domain, variants) if any(at == domain for at, _, _ in found) else {}
        for student in dict.fromkeys(student for at, student, _ in found if at == domain):
            if (domain, student, NONE.name) in found:
                print(f"| {domain} | {student} | | | | {' | '.join(cells_of(found, domain, student, NONE))} |")
            for variant in variants:
                if (domain, student, variant.name) in found:
                    stored = f"{variant.k} | {'yes' if variant.states else 'no'} | {megabytes[variant.name]:.1f}"
                    cells = " | ".join(cells_of(found, domain, student, variant))
                    print(f"| {domain} | {student} | {stored} | {cells} |")


def _megabytes(plan: Plan, domain: str, variants: Sequence[KeptItems]) -> dict[str, float]:
    """Return what all teachers' labels of a domain take where no more is stored than each variant uses."""
    total = dict.fromkeys((variant.name for variant in variants), 0.0)
    stored = plan.store.find(plan.corpus(domain))
    if stored is None:
        return total
    corpus = read_corpus(stored)
    for teacher in plan.taught_by(domain):
        artifact = plan.store.find(plan.labels(teacher, domain))
        if artifact is not None:
            block = read_labels(artifact, corpus)
            for variant in variants:
                total[variant.name] += _stored(artifact, block, corpus, variant) / _MEGABYTE
    return total


def _stored(artifact: Artifact, block: LabelBlock, corpus: Corpus, variant: KeptItems) -> int:
    """Return the bytes of one teacher's labels, written as `ckd precompute` writes them, in one part."""
    kept = cut_to(block, variant.k)
    vectors = read_vectors(artifact) if variant.states else None
    with TemporaryDirectory() as folder, Store(Path(folder)).draft(Address("labels", {})) as draft:
        write_part(draft, 0, kept if variant.states else replace(kept, state=None), corpus, {})
        if vectors is not None:
            write_vectors(draft, vectors)
        return sum(path.stat().st_size for path in draft.commit().path.iterdir())
