"""Which artifacts the views show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ckd.storage.artifact import Artifact


class LabelSource(NamedTuple):
    """The labels that one teacher gave to one domain."""

    teacher: str
    domain: str
    artifact: Artifact


class AgreementSource(NamedTuple):
    """What :func:`ckd.storage.sql.agreement.write_agreement` kept of two teachers, ``teacher`` the first by name."""

    domain: str
    teacher: str
    other: str
    artifact: Artifact


@dataclass(frozen=True)
class Contents:
    """The artifacts that the views show; their files are those of their manifests, never what a folder holds.

    Attributes:
        corpora: domain to its corpus.
        labels: at most one artifact per (teacher, domain).
        runs: any runs; a run says itself of which domain and student it is.
        agreements: of pairs among the labels; what is not here is computed from the labels, at the cost of a question.
    """

    corpora: Mapping[str, Artifact] = field(default_factory=dict)
    labels: Sequence[LabelSource] = ()
    runs: Sequence[Artifact] = ()
    agreements: Sequence[AgreementSource] = ()

    def __post_init__(self) -> None:
        pairs = [(source.teacher, source.domain) for source in self.labels]
        if len(set(pairs)) < len(pairs):
            raise ValueError("two label artifacts of one teacher and domain would count every label twice")
