"""What the settings of every teacher have in common, and what the plan asks of them. Imports nothing heavy."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from ckd.stages import settings
from ckd.storage.errors import UserError
from ckd.storage.folds import Fold, all_folds

Precision = Literal["auto", "float32", "bfloat16"]
PRECISION = "of the forward pass in training: auto is bfloat16 (autocast) on a GPU and float32 elsewhere"
SEED = "of the training; the students' seed does not touch a teacher"


class AdaptationSettings(settings.Settings):
    """Base of the settings of a training on each domain."""

    folds: int = Field(
        default=0,
        ge=0,
        description="split the users in so many folds, each with one more teacher that is adapted on the others' users "
        "and labels the fold's training positions, of which the teacher of all users is over-sure; 0: that one labels "
        "everything",
    )

    @field_validator("folds")
    @classmethod
    def _others(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("1 fold leaves no other users to adapt its teacher on; give 2 or more, or 0 for none")
        return folds


class TeacherSettings(settings.Settings):
    """Base of the ``Settings`` of a kind of teacher; each has a literal field ``kind`` beside these."""

    domains: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="domains that this teacher labels; all of them by default"
    )

    encodes_items: ClassVar[bool] = False
    """Whether item vectors cost a pass of a network over the catalogue, so that they are kept as an artifact."""

    gives_lists: ClassVar[bool] = False
    """Whether ``open_teacher`` returns ranked lists, which have no query vectors to store."""

    def labels(self, domain: str) -> bool:
        """Return whether the teacher labels a domain."""
        return self.domains is None or domain in self.domains

    def text_settings(self, common: Any) -> Any | None:
        """Return how the item texts that the teacher reads become vectors, or None if it reads none.

        Args:
            common: the configuration's ``text``.
        """
        return None

    def brings_own_text(self) -> bool:
        """Return whether the teacher has a way of its own, for which a domain's ``text_vectors`` do not stand."""
        return False

    def augmentation(self, text: Any) -> Any | None:
        """Return how the texts of augmented items become vectors, or None if pre-training needs none."""
        return None

    def pretraining(self) -> settings.Settings | None:
        """Return the settings of the pre-training on source domains, or None."""
        return None

    def adaptation(self) -> settings.Settings | None:
        """Return the settings of the training on each domain, or None."""
        return None

    def user_folds(self) -> list[Fold]:
        """Return the folds of users that have a teacher of their own beside the one adapted on all users."""
        adaptation = self.adaptation()
        return all_folds(adaptation.folds) if isinstance(adaptation, AdaptationSettings) else []

    def starts_from(self) -> bool:
        """Return whether adaptation starts from a pre-trained network or checkpoint, not from nothing."""
        return True

    def files(self, domain: str, where: str) -> Mapping[str, Path]:
        """Return the files of the frozen teacher that the settings name, by role: all that determines its labels.

        Args:
            domain: the domain that is labelled.
            where: the configuration key of the teacher, for messages.

        Raises:
            UserError: the settings name none, or one is not there.
        """
        raise UserError(f"{where}: names no frozen teacher")

    def scoring(self, gpu: Callable[[], bool]) -> dict[str, Any]:
        """Return the settings that change labels beside the files; they are part of the labels' key.

        Args:
            gpu: tells whether networks run on a GPU; asked only if that changes labels.
        """
        return {}


class PretrainedSettings(TeacherSettings):
    """Base of kinds that are pre-trained, which have the fields ``checkpoint``, ``pretrain`` and ``adapt``."""

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield a teacher of two origins, or of none."""
        if (values["checkpoint"] is None) == (values["pretrain"] is None):
            yield "give either checkpoint (a frozen teacher) or pretrain (the training that makes one)"

    def pretraining(self) -> settings.Settings | None:
        """Return ``pretrain``."""
        found: settings.Settings | None = vars(self)["pretrain"]
        return found

    def adaptation(self) -> settings.Settings | None:
        """Return ``adapt``, unless its mode is none."""
        adapt = vars(self)["adapt"]
        return adapt if adapt is not None and adapt.mode != "none" else None
