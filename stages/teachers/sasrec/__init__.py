"""SASRec as a teacher: item IDs alone, no text; larger than the student of the same name, trained on each domain."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ckd.stages.settings import Located
from ckd.stages.students import sasrec
from ckd.stages.students.settings import AttentionSizes
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS, folder_files, refuse_other_kind
from ckd.stages.teachers.settings import PRECISION, SEED, AdaptationSettings, Precision, TeacherSettings

if TYPE_CHECKING:
    from ckd.stages.teachers.contract import Opening
    from ckd.stages.teachers.sasrec.teacher import SASRecTeacher


class TrainSettings(AttentionSizes, AdaptationSettings):
    """Training on a domain's training split, from nothing, with full softmax over its catalogue."""

    hidden: int = Field(default=128, ge=1, description="width of item vectors and layers")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="of embeddings, attention and feed-forward layers")
    epochs: int = Field(default=200, ge=1, description="passes over the training sequences, at most")
    patience: int = Field(
        default=10, ge=1, description="epochs without a better NDCG@10 on validation before training stops"
    )
    batch_size: int = Field(default=256, ge=1, description="sequences per step")
    learning_rate: float = Field(default=1e-3, gt=0, description="of AdamW")
    weight_decay: float = Field(default=0.0, ge=0, description="of AdamW")
    precision: Precision = Field(default="auto", description=PRECISION)
    seed: int = Field(default=0, ge=0, lt=2**32, description=SEED)

    @property
    def network(self) -> sasrec.Sizes:
        """Sizes of the network."""
        return sasrec.Sizes(**{name: getattr(self, name) for name in sasrec.Sizes.model_fields if name != "kind"})


class Settings(TeacherSettings):
    """A SASRec teacher: the training that makes it, or one that was exported."""

    kind: Literal["sasrec"] = "sasrec"
    train: TrainSettings | None = Field(default=None, description="train one on each domain with `ckd pretrain`")
    checkpoint: Located | None = Field(
        default=None,
        description="folder with config.json and model.safetensors, as `ckd pretrain --export` writes them; "
        "`{domain}` in it stands for the domain's name",
    )

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield a teacher of two origins, or of none."""
        if (values["checkpoint"] is None) == (values["train"] is None):
            yield "give either train (`train: {}` for the defaults) or checkpoint (a frozen teacher)"

    def adaptation(self) -> TrainSettings | None:
        """Return ``train``."""
        return self.train

    def starts_from(self) -> bool:
        """Return False: it is trained from nothing."""
        return False

    def files(self, domain: str, where: str) -> Mapping[str, Path]:
        """Return the files of the checkpoint."""
        if self.checkpoint is None:
            return super().files(domain, where)
        folder = Path(self.checkpoint.replace("{domain}", domain))
        refuse_other_kind(folder / CONFIG, "sasrec")
        return folder_files(folder, (CONFIG, WEIGHTS), f"{where}.checkpoint")


def open_teacher(opening: "Opening") -> "SASRecTeacher":
    """Open a frozen SASRec, to compute in float64 (labels) or float32 (serving).

    Raises:
        UserError: the files do not hold a SASRec, or one of another catalogue.
    """
    from ckd.stages.teachers.sasrec.teacher import SASRecTeacher

    return SASRecTeacher.open(opening)
