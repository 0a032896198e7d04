"""What a configuration asks for: every artifact's address, and whether it is there already.

Computing an address reads raw files and small manifests only, so that a plan is made without torch, pyarrow or DuckDB.
"""

from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ckd.pipeline.config.models import Configuration
from ckd.stages.distill.address import run_address
from ckd.stages.precompute.address import label_address
from ckd.stages.prepare.address import corpus_address
from ckd.stages.prepare.settings import DomainSettings
from ckd.stages.pretrain.address import adapt_address, pretrain_address
from ckd.stages.teachers import TEACHERS
from ckd.stages.teachers.frozen import digests, frozen_digests
from ckd.stages.teachers.settings import TeacherSettings
from ckd.stages.text.address import text_address
from ckd.stages.text.encoder import Encoder, locate_encoder
from ckd.storage.artifact import Artifact, Store
from ckd.storage.errors import UserError
from ckd.storage.keys import Address


class Pending(UserError):
    """An address cannot be known yet: something before it has not been made. The text says what."""


class Plan:
    """The addresses of one configuration."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.store = Store(configuration.store)

    @cache  # noqa: B019 - a plan lives as long as its command
    def corpus(self, domain: str) -> Address:
        """Return the corpus of a domain or source domain."""
        return corpus_address(self.domain(domain)[1])

    def domain(self, name: str) -> tuple[str, DomainSettings]:
        """Return the configuration key and the settings of a domain or source domain; their names are distinct."""
        section = "domains" if name in self.configuration.domains else "sources"
        settings: DomainSettings = getattr(self.configuration, section)[name]
        return f"{section}.{name}", settings

    def fetch_encoder(self) -> Encoder:
        """Return the text encoder; downloaded if it must be.

        Raises:
            UserError: it cannot be found.
        """
        encoder = locate_encoder(self.configuration.text.encoder)
        if encoder is None:
            raise UserError(f"text.encoder: {self.configuration.text.encoder} cannot be found")
        return encoder

    @cached_property
    def _encoder(self) -> Encoder:
        encoder = locate_encoder(self.configuration.text.encoder, download=False)
        if encoder is None:
            raise Pending(
                f"text encoder {self.configuration.text.encoder} is not on this machine yet; `ckd prepare` fetches it"
            )
        return encoder

    def needs_text(self, teacher: str) -> bool:
        """Return whether a teacher reads item text vectors."""
        return bool(getattr(TEACHERS.load(self.configuration.teachers[teacher].kind), "NEEDS_TEXT", False))

    def text(self, domain: str) -> Address:
        """Return the text vectors of a domain or source domain.

        Raises:
            Pending: the encoder is not on this machine yet.
        """
        return text_address(self.corpus(domain).key, self.configuration.text, self._encoder)

    def text_domains(self) -> list[str]:
        """Return the domains, sources first, whose text vectors some teacher reads."""
        teachers = self.configuration.teachers
        if not any(self.needs_text(name) for name in teachers):
            return []
        pretrained = any(self.pretrained_by_us(name) for name in teachers)
        return [*(self.configuration.sources if pretrained else ()), *self.configuration.domains]

    def pretrained_by_us(self, teacher: str) -> bool:
        """Return whether a teacher is pre-trained by `ckd pretrain`."""
        return getattr(self.configuration.teachers[teacher], "pretrain", None) is not None

    def adapted_by_us(self, teacher: str) -> bool:
        """Return whether a teacher is adapted to each domain by `ckd pretrain`."""
        adapt = getattr(self.configuration.teachers[teacher], "adapt", None)
        return adapt is not None and adapt.mode != "none"

    def pretrained(self, teacher: str) -> Address:
        """Return the address of a teacher that is pre-trained by us."""
        settings = self.configuration.teachers[teacher]
        inputs = self.text if self.needs_text(teacher) else self.corpus
        sources = [inputs(name).key for name in sorted(self.configuration.sources)]
        return pretrain_address(settings.kind, settings.pretrain, sources)

    def start(self, teacher: str, domain: str) -> Path:
        """Return the folder of the frozen teacher before adaptation.

        Raises:
            Pending: it has not been trained yet.
            UserError: the checkpoint is not there.
        """
        if not self.pretrained_by_us(teacher):
            named = getattr(self.configuration.teachers[teacher], "checkpoint", None)
            if named is None:
                raise UserError(f"teachers.{teacher}: names no checkpoint, and its kind cannot be trained by ckd")
            checkpoint = Path(named.replace("{domain}", domain))
            frozen_digests(checkpoint, f"teachers.{teacher}.checkpoint")
            return checkpoint
        return self._trained(self.pretrained(teacher), teacher).path

    def adapted(self, teacher: str, domain: str) -> Address:
        """Return the address of a teacher that is adapted by us.

        Raises:
            Pending: what it starts from has not been trained yet.
        """
        settings = self.configuration.teachers[teacher]
        start = frozen_digests(self.start(teacher, domain), f"teachers.{teacher}")
        text = self.text(domain).key if self.needs_text(teacher) else None
        return adapt_address(settings.kind, settings.adapt, start, self.corpus(domain).key, text)

    def frozen(self, teacher: str, domain: str) -> Path:
        """Return the folder of the teacher that labels a domain.

        Raises:
            Pending: it has not been trained yet.
        """
        if not self.adapted_by_us(teacher):
            return self.start(teacher, domain)
        return self._trained(self.adapted(teacher, domain), teacher).path

    @cache  # noqa: B019
    def labels(self, teacher: str, domain: str) -> Address:
        """Return the labels of one teacher for one domain.

        Raises:
            Pending: the teacher has not been trained yet.
        """
        named = self.configuration.teachers[teacher]
        if isinstance(named, TeacherSettings):
            files = digests(named.files(domain, f"teachers.{teacher}"))
            corpus, scoring = self.corpus(domain).key, named.scoring(lambda: False)
            return label_address(teacher, domain, self.configuration.labels, files, corpus, None, scoring)
        frozen = frozen_digests(self.frozen(teacher, domain), f"teachers.{teacher}")
        text = self.text(domain).key if self.needs_text(teacher) else None
        settings = self.configuration.labels
        return label_address(teacher, domain, settings, frozen, self.corpus(domain).key, text)

    def taught_by(self) -> list[str]:
        """Return the teachers that the students learn from."""
        chosen = self.configuration.distill.teachers
        return list(self.configuration.teachers if chosen is None else chosen)

    def run(self, student: str, domain: str, distilled: bool) -> Address:
        """Return one student, with or without distillation.

        Raises:
            Pending: a teacher has not been trained yet.
        """
        configuration = self.configuration
        labels = {name: self.labels(name, domain).key for name in self.taught_by()} if distilled else {}
        return run_address(
            student,
            domain,
            configuration.students[student],
            configuration.distill,
            configuration.evaluate.mask_history,
            configuration.seed,
            self.corpus(domain).key,
            labels,
        )

    def variants(self) -> list[bool]:
        """Return which variants of each student are trained: False is without distillation."""
        distilled = [True] if self.taught_by() and self.configuration.distill.alpha > 0 else []
        return ([False] if self.configuration.distill.baseline or not distilled else []) + distilled

    def ready_labels(self, domain: str) -> dict[str, Artifact]:
        """Return the labels that the students of a domain learn from, by teacher.

        Raises:
            UserError: some are not in the store.
        """
        ready = {name: self.store.find(self.labels(name, domain)) for name in self.taught_by()}
        for name, artifact in ready.items():
            if artifact is None:
                there = (self.store.root / self.labels(name, domain).directory).exists()
                found = "only damaged labels" if there else "no labels"
                raise UserError(f"the store has {found} of teacher {name} for domain {domain}; run `ckd precompute`")
        return {name: artifact for name, artifact in ready.items() if artifact is not None}

    def runs(self) -> Iterator[tuple[str, str, bool]]:
        """Yield (student, domain, distilled) of every student that is trained."""
        for domain in self.configuration.domains:
            for student in self.configuration.students:
                for distilled in self.variants():
                    yield student, domain, distilled

    def _trained(self, address: Address, teacher: str) -> Artifact:
        artifact = self.store.find(address)
        if artifact is None:
            raise Pending(f"teacher {teacher} is not trained yet; run `ckd pretrain` first")
        return artifact


def difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return the dotted names of the inputs in which two artifacts differ."""
    left, right = _flat(wanted), _flat(found)
    return sorted(name for name in left.keys() | right.keys() if left.get(name, ...) != right.get(name, ...))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    return flat
