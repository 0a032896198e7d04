"""Any Hugging Face text encoder as a two-tower teacher over item text: nothing is trained."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from ckd.stages.settings import Published, TextField, TextPooling, TextStyle, distinct
from ckd.stages.teachers.pooled import PooledSettings

if TYPE_CHECKING:
    from ckd.stages.teachers.contract import Opening
    from ckd.stages.teachers.pooled.teacher import PooledTeacher


_OWN = ("encoder", "fields", "style", "max_tokens", "pooling")
"""Settings of the text vectors, as they are called under ``text``."""


class Settings(PooledSettings):
    """A text encoder over item texts; what is not given is as in the configuration's ``text``."""

    kind: Literal["hf"] = "hf"
    encoder: Published | None = Field(
        default=None,
        description="a Hugging Face encoder: a local folder, or a name found in an installed package or on the hub; "
        "text.encoder if not given",
    )
    fields: tuple[TextField, ...] | None = Field(
        default=None, min_length=1, description="attributes that are joined, in this order; text.fields if not given"
    )
    style: TextStyle | None = Field(
        default=None, description="how fields become one text: plain or unisrec; text.style if not given"
    )
    max_tokens: int | None = Field(
        default=None, ge=8, description="longer texts are cut to this many tokens; text.max_tokens if not given"
    )
    pooling: TextPooling | None = Field(
        default=None, description="tokens to text vector: mean, cls (the first) or last; text.pooling if not given"
    )

    _distinct = field_validator("fields")(distinct)

    def brings_own_text(self) -> bool:
        """Return whether any setting of the text vectors is this teacher's own."""
        return any(getattr(self, name) is not None for name in _OWN)

    def text_settings(self, common: Any) -> Any:
        """Return the configuration's ``text`` with what this teacher changes."""
        own = {name: getattr(self, name) for name in _OWN}
        return common.model_copy(update={name: value for name, value in own.items() if value is not None})

    def files(self, domain: str, where: str) -> Mapping[str, Path]:
        """Return none: the key of the text vectors, a part of the labels' key, says which encoder made them."""
        return {}


def open_teacher(opening: "Opening") -> "PooledTeacher":
    """Take the text vectors for item vectors, to compute in float64 (labels) or float32 (serving).

    Raises:
        UserError: similarity is dot, and the vectors do not fit into half precision.
    """
    from ckd.stages.teachers.pooled.teacher import PooledTeacher

    if opening.text is None:
        raise ValueError("a text encoder needs item text vectors")
    return PooledTeacher.of(opening, opening.text.vectors, opening.settings.encoder or "text.encoder")
