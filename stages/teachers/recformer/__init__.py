"""Recformer: language representations for sequential recommendation (Li et al., KDD 2023; arXiv 2305.13731)."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ckd.stages import settings
from ckd.stages.settings import Located, undivided
from ckd.stages.teachers.settings import PRECISION, SEED, AdaptationSettings, Precision, PretrainedSettings

if TYPE_CHECKING:
    from ckd.stages.teachers.contract import Opening
    from ckd.stages.teachers.recformer.teacher import RecformerTeacher


class NetworkSettings(settings.Settings):
    """Sizes of a Recformer that is trained from scratch; a checkpoint brings its own."""

    vocabulary: int = Field(default=8_192, ge=300, description="tokens of the byte-level BPE, learnt from the sources")
    hidden: int = Field(default=128, ge=1, description="width of token, item and sequence vectors")
    layers: int = Field(default=3, ge=1, description="Longformer layers")
    heads: int = Field(default=4, ge=1, description="attention heads per layer; they divide hidden")
    inner: int = Field(default=256, ge=1, description="width of the feed-forward layers")
    window: int = Field(default=64, ge=2, multiple_of=2, description="tokens that a token sees, half to each side")
    max_tokens: int = Field(default=1_024, ge=8, description="tokens of a history that are seen, the newest ones")
    max_items: int = Field(default=50, ge=1, description="items of a history that are seen, the newest ones")
    max_attribute_tokens: int = Field(default=32, ge=2, description="tokens of one attribute, its name included")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="of hidden layers and attention weights")
    temperature: float = Field(default=0.05, gt=0, description="tau: scores are cosine / tau")

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield a width that the heads do not divide."""
        return undivided(values["hidden"], values["heads"])


class PretrainSettings(settings.Settings):
    """Masked language modelling and item-item contrast on the mixed source domains (paper, section 2.4)."""

    network: NetworkSettings = Field(default_factory=NetworkSettings)
    epochs: int = Field(default=32, ge=1, description="passes over all source sequences, at most")
    patience: int = Field(
        default=5, ge=1, description="epochs without a better accuracy on held-out sequences before training stops"
    )
    held_out: int = Field(
        default=1_024,
        ge=2,
        description="source sequences, drawn by the seed, that choose the epoch and are not trained on",
    )
    batch_size: int = Field(
        default=64, ge=2, description="sequences per step; the others' next items are the negatives"
    )
    learning_rate: float = Field(default=5e-5, gt=0, description="of AdamW, falling linearly to zero")
    mlm_weight: float = Field(default=0.1, ge=0, description="lambda of the masked language modelling")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    freeze_words: bool = Field(
        default=False, description="keep the word embeddings as they start, as the authors do with Longformer's"
    )
    precision: Precision = Field(default="auto", description=PRECISION)
    seed: int = Field(default=0, ge=0, lt=2**32, description=SEED)


class AdaptSettings(AdaptationSettings):
    """Two-stage adaptation to one target domain, on its training split only (paper, section 2.5)."""

    mode: Literal["none", "two-stage"] = Field(
        default="two-stage",
        description="none: as pre-trained; two-stage: item vectors encoded anew before each epoch, then fixed",
    )
    contrast_epochs: int = Field(
        default=0,
        ge=0,
        description="epochs of the first stage that begin with pre-training's item-item contrast on the domain, which "
        "trains the items' side too; the authors have none, their network being far larger",
    )
    epochs: int = Field(default=128, ge=1, description="passes over the users of the first stage, at most")
    patience: int = Field(
        default=5, ge=1, description="epochs without a better NDCG@10 on validation before the first stage stops"
    )
    second_epochs: int = Field(default=128, ge=0, description="passes over the users of the second stage, at most")
    second_patience: int = Field(default=3, ge=1, description="the same of the second stage")
    batch_size: int = Field(default=128, ge=1, description="sequences per step")
    learning_rate: float = Field(default=5e-5, gt=0, description="of AdamW, falling linearly to zero")
    warmup: int = Field(default=100, ge=0, description="steps over which the learning rate rises")
    dropout: float | None = Field(default=None, ge=0, lt=1, description="as in pre-training by default")
    precision: Precision = Field(default="auto", description=PRECISION)
    seed: int = Field(default=0, ge=0, lt=2**32, description=SEED)


class Settings(PretrainedSettings):
    """A Recformer teacher: a frozen checkpoint, or the training that makes one."""

    kind: Literal["recformer"] = "recformer"
    checkpoint: Located | None = Field(
        default=None,
        description="folder with config.json, model.safetensors and tokenizer, or the authors' weights file; "
        "`{domain}` in it stands for the domain's name",
    )
    config: Located | None = Field(
        default=None, description="config.json of a weights file; the one beside it by default"
    )
    tokenizer: Located | None = Field(
        default=None,
        description="tokenizer.json, or a folder with it or with vocab.json and merges.txt; beside the weights by "
        "default",
    )
    item_ids: Located | None = Field(
        default=None,
        description="JSON of the item ids by row of a fine-tuned item table: a list, or an object {item_id: row} (the "
        "authors' smap.json)",
    )
    precision: Literal["auto", "float32", "bfloat16", "float64"] = Field(
        default="auto", description="in which labels are computed: auto is bfloat16 on a GPU and float32 elsewhere"
    )
    pretrain: PretrainSettings | None = Field(
        default=None, description="pre-train on the configuration's sources with `ckd pretrain`"
    )
    adapt: AdaptSettings | None = Field(
        default=None, description="adapt to each domain with `ckd pretrain`; without it the teacher stays as it is"
    )

    encodes_items: ClassVar[bool] = True

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield a teacher of two origins or of none, and files that belong to a checkpoint where there is none."""
        yield from super().conflicts(values)
        if values["checkpoint"] is None:
            named = [name for name in ("config", "tokenizer", "item_ids") if values[name] is not None]
            yield from (f"{name} belongs to a checkpoint, and there is none; remove it" for name in named)

    def files(self, domain: str, where: str) -> Mapping[str, Path]:
        """Return the files of the checkpoint: configuration, weights, tokenizer, item ids."""
        if self.checkpoint is None:
            return super().files(domain, where)
        from ckd.stages.teachers.recformer.files import checkpoint_files

        named = {name: getattr(self, name) for name in ("checkpoint", "config", "tokenizer", "item_ids")}
        return checkpoint_files({name: path for name, path in named.items() if path is not None}, domain, where)

    def scoring(self, gpu: Callable[[], bool]) -> dict[str, Any]:
        """Return the precision of the labels."""
        if self.precision != "auto":
            return {"precision": self.precision}
        return {"precision": "bfloat16" if gpu() else "float32"}


def open_teacher(opening: "Opening") -> "RecformerTeacher":
    """Open a frozen Recformer.

    Raises:
        UserError: the files do not hold a Recformer, or one that does not fit this domain.
    """
    from ckd.stages.teachers.recformer.teacher import RecformerTeacher

    return RecformerTeacher.open(opening)
