"""What a configuration asks for: every artifact's address, and whether it is there already.

Computing an address reads raw files and small manifests only, so that a plan is made without torch, pyarrow or DuckDB.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from ckd.pipeline.config.models import Configuration
from ckd.stages.distill.address import run_address
from ckd.stages.precompute.address import agreement_address, item_vectors_address, label_address
from ckd.stages.prepare.address import corpus_address
from ckd.stages.prepare.settings import DomainSettings
from ckd.stages.pretrain.address import adapt_address, pretrain_address
from ckd.stages.settings import Settings
from ckd.stages.teachers.frozen import digests
from ckd.stages.teachers.settings import TeacherSettings
from ckd.stages.text.address import brought_address, text_address
from ckd.stages.text.encoder import Encoder, locate_encoder
from ckd.stages.text.settings import TextSettings
from ckd.storage.artifact import Artifact
from ckd.storage.errors import UserError
from ckd.storage.folds import Fold
from ckd.storage.formats import CURVE
from ckd.storage.keys import Address
from ckd.storage.store import Store


class Run(NamedTuple):
    """A student that is trained.

    Attributes:
        student: its name.
        domains: those that it serves; several where its scope is joint.
        distilled: whether it learns from teachers.
    """

    student: str
    domains: tuple[str, ...]
    distilled: bool

    def __str__(self) -> str:
        """Return how it is called in tables and progress."""
        return f"{self.student}, {' + '.join(self.domains)}, {'distilled' if self.distilled else 'plain'}"


class Pending(UserError):
    """An address cannot be known yet: something before it has not been made. The text says what."""


class _OwnText(TextSettings):
    """A teacher's own way from texts to vectors: none of the configuration's ``text``, even if it is the same."""


class Plan:
    """The addresses of one configuration.

    Attributes:
        by_inputs: whether they are computed from raw files and teachers.
    """

    by_inputs = True

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

    def fetch_encoder(self, text: TextSettings) -> Encoder:
        """Return a text encoder; downloaded if it must be.

        Raises:
            UserError: it cannot be found.
        """
        section = self.section(text)
        encoder = locate_encoder(text.encoder, section=section)
        if encoder is None:
            raise UserError(f"{section}.encoder: {text.encoder} cannot be found")
        return encoder

    def section(self, text: TextSettings) -> str:
        """Return where the configuration says how texts become vectors: in a teacher of its own way, or in ``text``."""
        if text == self.configuration.text:
            return "text"
        return next((f"teachers.{name}" for name in self.configuration.teachers if self.reads(name) == text), "text")

    @cache  # noqa: B019
    def _encoder(self, name: str, section: str) -> Encoder:
        encoder = locate_encoder(name, download=False, section=section)
        if encoder is None:
            raise Pending(f"text encoder {name} is not on this machine yet; `ckd prepare` fetches it")
        return encoder

    def teacher(self, name: str) -> TeacherSettings:
        """Return the settings of a teacher."""
        settings: TeacherSettings = self.configuration.teachers[name]
        return settings

    def labelled(self, teacher: str) -> list[str]:
        """Return the domains that a teacher labels."""
        return [domain for domain in self.configuration.domains if self.teacher(teacher).labels(domain)]

    def label_folds(self, teacher: str) -> list[Fold]:
        """Return the folds of users whose training positions are labelled by a teacher of their own."""
        return self.teacher(teacher).user_folds() if "train" in self.configuration.labels.splits else []

    def reads(self, teacher: str) -> TextSettings | None:
        """Return how the item texts that a teacher reads become vectors, or None if it reads none."""
        settings: TextSettings | None = self.teacher(teacher).text_settings(self.configuration.text)
        if settings is not None and self.teacher(teacher).brings_own_text():
            return _OwnText.model_validate(settings.model_dump())
        return settings

    def augments(self, teacher: str) -> TextSettings | None:
        """Return how the texts of augmented items become vectors, or None if the pre-training needs none."""
        text = self.reads(teacher)
        augmented: TextSettings | None = None if text is None else self.teacher(teacher).augmentation(text)
        return augmented

    def text(self, domain: str, settings: TextSettings) -> Address:
        """Return the text vectors of a domain or source domain.

        Raises:
            Pending: the encoder is not on this machine yet.
        """
        brought = self.brought(domain, settings)
        if brought is not None:
            return brought_address(self.corpus(domain).key, brought)
        return text_address(self.corpus(domain).key, settings, self._encoder(settings.encoder, self.section(settings)))

    def brought(self, domain: str, settings: TextSettings) -> Path | None:
        """Return the file of text vectors that a domain brings, or None if an encoder makes them.

        What it brings stands for the configuration's ``text``; a teacher with a way of its own has its encoder.

        Raises:
            UserError: it brings vectors, and none of texts with words left out where these are asked for.
        """
        key, own = self.domain(domain)
        if self.section(settings) != "text":
            return None
        if own.text_vectors is None or not settings.drop_words:
            return own.text_vectors
        if own.augmented_text_vectors is None:
            raise UserError(
                f"{key}: brings text_vectors and no augmented_text_vectors, which the pre-training on words left out "
                "reads; name them, or let the teacher's pretrain.item_drop_coefficient be 1"
            )
        return own.augmented_text_vectors

    def texts(self) -> list[tuple[str, TextSettings]]:
        """Return the domains, sources first, whose text vectors some teacher reads, and how the vectors are made."""
        wanted: dict[tuple[str, TextSettings], None] = {}
        for teacher in self.configuration.teachers:
            if self.teacher(teacher).pretraining() is not None:
                ways = [text for text in (self.reads(teacher), self.augments(teacher)) if text is not None]
                wanted |= {(domain, text): None for domain in self.configuration.sources for text in ways}
        for teacher in self.configuration.teachers:
            if (text := self.reads(teacher)) is not None:
                wanted |= {(domain, text): None for domain in self.labelled(teacher)}
        return list(wanted)

    def trained(self) -> list[str]:
        """Return the teachers that `ckd pretrain` trains, on source domains or on each domain."""
        teachers = [(name, self.teacher(name)) for name in self.configuration.teachers]
        return [name for name, it in teachers if it.pretraining() is not None or it.adaptation() is not None]

    def pretrained(self, teacher: str) -> Address:
        """Return the address of a teacher that is pre-trained by us."""
        settings = self.teacher(teacher).pretraining()
        if settings is None:
            raise ValueError(f"{teacher} is not pre-trained")
        ways = [text for text in (self.reads(teacher), self.augments(teacher)) if text is not None]
        inputs = [
            key
            for name in sorted(self.configuration.sources)
            for key in ([self.text(name, text).key for text in ways] or [self.corpus(name).key])
        ]
        return pretrain_address(self.configuration.teachers[teacher].kind, self._resolved(settings), inputs)

    def start(self, teacher: str, domain: str) -> Mapping[str, Path]:
        """Return the files of the frozen teacher before adaptation, by role; none if it is trained from nothing.

        Raises:
            Pending: it has not been trained yet.
            UserError: a file is not there.
        """
        settings = self.teacher(teacher)
        if settings.pretraining() is not None:
            return self._trained(self.pretrained(teacher), teacher)
        if settings.adaptation() is not None and not settings.starts_from():
            return {}
        return settings.files(domain, f"teachers.{teacher}")

    def adapted(self, teacher: str, domain: str, fold: Fold | None = None) -> Address:
        """Return the address of a teacher that is adapted by us, on all users or on those outside a fold.

        Raises:
            Pending: what it starts from has not been trained yet.
        """
        settings = self.teacher(teacher).adaptation()
        if settings is None:
            raise ValueError(f"{teacher} is not adapted")
        start = digests(self.start(teacher, domain))
        kind = self.configuration.teachers[teacher].kind
        domain_keys = self.corpus(domain).key, self._text_key(teacher, domain)
        return adapt_address(kind, self._resolved(settings), start, *domain_keys, fold)

    def _resolved(self, settings: Settings) -> Settings:
        """Return the settings of a training with the precision that `auto` stands for on this machine."""
        if getattr(settings, "precision", None) != "auto":
            return settings
        return settings.model_copy(update={"precision": "bfloat16" if self._on_gpu() else "float32"})

    def frozen(self, teacher: str, domain: str, fold: Fold | None = None) -> Mapping[str, Path]:
        """Return the files of the teacher that labels a domain, or the training positions of a fold in it, by role.

        Raises:
            Pending: it has not been trained yet.
        """
        if self.teacher(teacher).adaptation() is None:
            return self.start(teacher, domain)
        title = teacher if fold is None else f"{teacher}, {domain}, {fold},"
        return self._trained(self.adapted(teacher, domain, fold), title)

    @cache  # noqa: B019
    def labels(self, teacher: str, domain: str) -> Address:
        """Return the labels of one teacher for one domain.

        Raises:
            Pending: the teacher has not been trained yet.
        """
        folds = [self._opinion(teacher, domain, fold)[1] for fold in self.label_folds(teacher)]
        return label_address(teacher, domain, self.configuration.labels, *self._opinion(teacher, domain, None), folds)

    def pairs(self, domain: str) -> list[tuple[str, str]]:
        """Return every two teachers that label a domain, each pair and all of them in order of name."""
        names = [name for name in self.configuration.teachers if self.teacher(name).labels(domain)]
        return list(combinations(sorted(names), 2))

    def agreement(self, one: str, other: str, domain: str) -> Address:
        """Return the agreement of two teachers on one domain.

        Raises:
            Pending: one of them has not been trained yet.
        """
        return agreement_address(self.labels(one, domain), self.labels(other, domain))

    def item_vectors(self, teacher: str, domain: str, fold: Fold | None = None) -> Address | None:
        """Return the item vectors of a teacher for one domain, or None if they are not kept apart from labels."""
        if not self.teacher(teacher).encodes_items:
            return None
        return item_vectors_address(*self._opinion(teacher, domain, fold))

    def frozen_digests(self, teacher: str, domain: str, fold: Fold | None = None) -> Mapping[str, str]:
        """Return the digests of :meth:`frozen`, by role, that are in the keys of what the teacher says."""
        return self._opinion(teacher, domain, fold)[1]

    @cache  # noqa: B019
    def _opinion(
        self, teacher: str, domain: str, fold: Fold | None
    ) -> tuple[str, dict[str, str], dict[str, Any], str, str | None]:
        frozen = digests(self.frozen(teacher, domain, fold))
        scoring = self.teacher(teacher).scoring(self._on_gpu)
        return (
            self.configuration.teachers[teacher].kind,
            frozen,
            scoring,
            self.corpus(domain).key,
            self._text_key(teacher, domain),
        )

    def _text_key(self, teacher: str, domain: str) -> str | None:
        text = self.reads(teacher)
        return None if text is None else self.text(domain, text).key

    def _on_gpu(self) -> bool:
        if self.configuration.device != "auto":
            return self.configuration.device == "cuda"
        from ckd.pipeline.device import chosen_device  # torch takes seconds to import

        return chosen_device("auto").type == "cuda"

    def taught_by(self, domain: str) -> list[str]:
        """Return the teachers that the students of a domain learn from."""
        chosen = self.configuration.distill.teachers
        names = self.configuration.teachers if chosen is None else chosen
        return [name for name in names if self.teacher(name).labels(domain)]

    def run(self, run: Run) -> Address:
        """Return one student, with or without distillation.

        Raises:
            Pending: a teacher has not been trained yet.
        """
        configuration = self.configuration
        labels = {
            domain: {name: self.labels(name, domain).key for name in self.taught_by(domain)}
            for domain in (run.domains if run.distilled else ())
        }
        return run_address(
            run.student,
            configuration.students[run.student],
            configuration.distill,
            configuration.evaluate.mask_history,
            configuration.seed,
            {domain: self.corpus(domain).key for domain in run.domains},
            labels,
        )

    def variants(self, domains: Sequence[str]) -> list[bool]:
        """Return which variants of a student of some domains are trained: False is without distillation."""
        taught = any(self.taught_by(domain) for domain in domains) and self.configuration.distill.alpha > 0
        distilled = [True] if taught else []
        return ([False] if self.configuration.distill.baseline or not distilled else []) + distilled

    def ready_labels(self, domain: str) -> dict[str, Artifact]:
        """Return the labels that the students of a domain learn from, by teacher.

        Raises:
            UserError: some are not in the store.
        """
        ready = {name: self.store.find(self.labels(name, domain)) for name in self.taught_by(domain)}
        for name, artifact in ready.items():
            if artifact is None:
                there = (self.store.root / self.labels(name, domain).directory).exists()
                found = "only damaged labels" if there else "no labels"
                raise UserError(f"the store has {found} of teacher {name} for domain {domain}; run `ckd precompute`")
            if artifact.inputs["corpus"] != self.corpus(domain).key:
                raise ValueError(f"labels {artifact.path} are of another corpus than {self.corpus(domain).directory}")
        return {name: artifact for name, artifact in ready.items() if artifact is not None}

    def runs(self) -> Iterator[Run]:
        """Yield every student that is trained: those of one domain by domain, then the joint ones."""
        everything = tuple(self.configuration.domains)
        students = self.configuration.students
        scopes = [((domain,), "per_domain") for domain in everything] + [(everything, "joint")]
        for domains, scope in scopes:
            for student in students:
                if students[student].scope == scope:
                    yield from (Run(student, domains, distilled) for distilled in self.variants(domains))

    def _trained(self, address: Address, teacher: str) -> Mapping[str, Path]:
        artifact = self.store.find(address)
        if artifact is None:
            raise Pending(f"teacher {teacher} is not trained yet; run `ckd pretrain` first")
        return trained_files(artifact)


def trained_files(artifact: Artifact) -> dict[str, Path]:
    """Return the files of a frozen teacher that ckd trained, by role.

    Raises:
        DamagedArtifact: one does not hold what was written.
    """
    return {name: artifact.verified(name) for name in artifact.files if name != CURVE}
