"""Settings of the label shards."""

from typing import Literal

from pydantic import Field, field_validator

from ckd.stages.settings import Settings

Split = Literal["train", "valid", "test"]


class LabelSettings(Settings):
    """What is stored of a teacher's opinion at each position."""

    top_k: int = Field(default=100, ge=1, description="items stored per position, best first")
    splits: tuple[Split, ...] = Field(
        default=("train", "valid", "test"), min_length=1, description="splits whose positions are labelled"
    )
    state: bool = Field(
        default=True,
        description="store the teacher's query vector, with which the score of any item is one dot product; "
        "the losses in_batch and top_k_plus_student need it",
    )
    precision: Literal["fixed", "exact", "float16", "bfloat16"] = Field(
        default="fixed",
        description="to what stored log-probabilities are rounded: `fixed` to 1/512, off by at most 1/1024; `float16` "
        "off by at most 1/2048 of themselves, `bfloat16` by 1/256; `exact` keeps float32, bit for bit, and takes two "
        "thirds more space",
    )
    shard_rows: int = Field(
        default=16_384,
        ge=1,
        description="positions per shard: the unit of work, of resume and of loss at a kill; not part of the key",
    )

    batch_size: int = Field(
        default=256, ge=1, description="sequences per pass of a teacher; changes speed and memory, never a label"
    )

    found_by: Literal["inputs", "name"] = Field(
        default="inputs",
        description="which labels of the store students learn from: those that the raw files and teachers named here "
        "make (inputs), or those that it has under the names of teacher and domain (name), for which neither raw "
        "files nor teachers nor text encoder need be at hand; not part of the key",
    )

    @field_validator("precision", mode="before")
    @classmethod
    def _by_its_older_name(cls, precision: object) -> object:
        return "exact" if precision == "float32" else precision

    @field_validator("splits")
    @classmethod
    def _in_order(cls, splits: tuple[Split, ...]) -> tuple[Split, ...]:
        return tuple(split for split in ("train", "valid", "test") if split in splits)
