"""UniSRec: universal sequence representations from item text (Hou et al., KDD 2022; arXiv 2206.05941)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ckd.stages import settings
from ckd.stages.settings import Located, undivided
from ckd.stages.teachers.frozen import CONFIG, WEIGHTS, folder_files, named_file, refuse_other_kind
from ckd.stages.teachers.settings import PRECISION, SEED, AdaptationSettings, Precision, PretrainedSettings

if TYPE_CHECKING:
    from ckd.stages.teachers.contract import Opening
    from ckd.stages.teachers.unisrec.teacher import UniSRecTeacher

Activation = Literal["gelu", "relu", "swish", "tanh", "sigmoid"]
Mode = Literal["none", "inductive", "transductive"]
PTH = ".pth"
CHECKPOINT, ITEM_IDS = "checkpoint", "item_ids"
"""Roles of the files of a teacher that the authors' code wrote."""


WORD_DROP = 0.15
"""Share of words that the authors leave out of the texts of augmented items."""


class NetworkSettings(settings.Settings):
    """Sizes of a UniSRec that is trained from scratch; a checkpoint brings its own."""

    hidden: int = Field(default=300, ge=1, description="width of item and sequence vectors")
    experts: int = Field(default=8, ge=1, description="experts of the text adaptor")
    layers: int = Field(default=2, ge=1, description="Transformer blocks")
    heads: int = Field(default=2, ge=1, description="attention heads per block; they divide hidden")
    inner: int = Field(default=256, ge=1, description="width of the feed-forward layers")
    max_length: int = Field(default=50, ge=1, description="items of a history that are seen, the last ones")
    activation: Activation = Field(default="gelu", description="of the feed-forward layers; gelu is the exact form")
    layer_norm_eps: float = Field(default=1e-12, gt=0, description="of all layer norms")
    temperature: float = Field(default=0.07, gt=0, description="tau: scores are cosine / tau")
    hidden_dropout: float = Field(default=0.5, ge=0, lt=1, description="of embeddings and feed-forward layers")
    attention_dropout: float = Field(default=0.5, ge=0, lt=1, description="of attention weights")
    adaptor_dropout: float = Field(default=0.2, ge=0, lt=1, description="of the adaptor's input")

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield a width that the heads do not divide."""
        return undivided(values["hidden"], values["heads"])


class PretrainSettings(settings.Settings):
    """Contrastive pre-training over the mixed source domains (paper, section 2.3)."""

    network: NetworkSettings = Field(default_factory=NetworkSettings)
    epochs: int = Field(default=10, ge=1, description="passes over all source sequences, at most")
    patience: int = Field(
        default=5, ge=1, description="epochs without a better accuracy on held-out sequences before training stops"
    )
    held_out: int = Field(
        default=1_024,
        ge=0,
        description="source sequences, drawn by the seed, that choose the epoch and are not trained on; with 0 the "
        "last epoch is kept",
    )
    batch_size: int = Field(default=512, ge=2, description="sequences per step, of all domains mixed")
    learning_rate: float = Field(default=1e-3, gt=0, description="of Adam")
    sequence_weight: float = Field(default=1e-3, ge=0, description="lambda of the sequence-sequence contrast")
    item_drop: float = Field(
        default=0.2, ge=0, lt=1, description="share of items that the augmented copy drops or changes"
    )
    item_drop_coefficient: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="share of batches whose augmented copies drop items; in the other batches they drop words",
    )
    precision: Precision = Field(default="auto", description=PRECISION)
    seed: int = Field(default=0, ge=0, lt=2**32, description=SEED)

    def drops_words(self) -> bool:
        """Return whether text vectors with dropped words are needed."""
        return self.sequence_weight > 0 and self.item_drop_coefficient < 1


class AdaptSettings(AdaptationSettings):
    """Adaptation to one target domain, on its training split only (paper, section 2.4)."""

    mode: Mode = Field(
        default="inductive",
        description="none: as pre-trained; inductive: text only; transductive: text and an item ID table",
    )
    freeze_encoder: bool = Field(
        default=False, description="train the adaptor (and ID table) only, as the paper's fixed-encoder setting"
    )
    dropout: float | None = Field(
        default=None, ge=0, lt=1, description="of hidden layers and attention; as in pre-training by default"
    )
    epochs: int = Field(default=60, ge=1, description="passes over the training sequences, at most")
    patience: int = Field(
        default=5, ge=1, description="epochs without a better NDCG@10 on validation before adaptation stops"
    )
    batch_size: int = Field(default=256, ge=1, description="sequences per step")
    learning_rate: float = Field(default=1e-3, gt=0, description="of Adam")
    precision: Precision = Field(default="auto", description=PRECISION)
    seed: int = Field(default=0, ge=0, lt=2**32, description=SEED)


class Settings(PretrainedSettings):
    """A UniSRec teacher: a frozen checkpoint, or the training that makes one."""

    kind: Literal["unisrec"] = "unisrec"
    checkpoint: Located | None = Field(
        default=None,
        description="folder with config.json and model.safetensors, or a .pth file of the authors' code; "
        "`{domain}` in it stands for the domain's name",
    )
    item_ids: Located | None = Field(
        default=None,
        description="JSON file with the item ids of a .pth file's rows (a list, null first for the padding item) or "
        "with the row of each id; by default rows are found by their text vectors; `{domain}` as in checkpoint",
    )
    pretrain: PretrainSettings | None = Field(
        default=None, description="pre-train on the configuration's sources with `ckd pretrain`"
    )
    adapt: AdaptSettings | None = Field(
        default=None, description="adapt to each domain with `ckd pretrain`; without it the teacher stays as it is"
    )

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield a teacher of two origins or of none, and item ids without rows that they could name."""
        yield from super().conflicts(values)
        if values["item_ids"] is not None and not str(values["checkpoint"]).endswith(PTH):
            yield f"item_ids names the rows of a {PTH} file, so checkpoint must be one; remove item_ids"

    def text_settings(self, common: Any) -> Any:
        """Return the configuration's ``text``: item vectors are made from text vectors."""
        return common

    def augmentation(self, text: Any) -> Any | None:
        """Return the texts' settings with words left out, where some batches of the pre-training drop words."""
        if self.pretrain is None or not self.pretrain.drops_words():
            return None
        return text.model_copy(update={"drop_words": WORD_DROP})

    def files(self, domain: str, where: str) -> Mapping[str, Path]:
        """Return the files of the checkpoint."""
        if self.checkpoint is None:
            return super().files(domain, where)
        if self.checkpoint.endswith(PTH):
            named = {CHECKPOINT: self.checkpoint} | ({ITEM_IDS: self.item_ids} if self.item_ids else {})
            return {role: named_file(path, domain, f"{where}.{role}") for role, path in named.items()}
        folder = Path(self.checkpoint.replace("{domain}", domain))
        refuse_other_kind(folder / CONFIG, "unisrec")
        return folder_files(folder, (CONFIG, WEIGHTS), f"{where}.checkpoint")


def open_teacher(opening: "Opening") -> "UniSRecTeacher":
    """Open a frozen UniSRec, to compute in float64 (labels) or float32 (serving).

    Raises:
        UserError: the files do not hold a UniSRec, or one that does not fit this domain or these text vectors.
    """
    from ckd.stages.teachers.unisrec.teacher import UniSRecTeacher

    return UniSRecTeacher.open(opening)
