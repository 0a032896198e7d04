"""Settings of the item text vectors."""

from typing import Any

from pydantic import Field, field_validator

from ckd.stages.settings import Published, Settings, TextField, TextPooling, TextStyle, distinct


class TextSettings(Settings):
    """How an item's attributes become one frozen vector."""

    encoder: Published = Field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        description="a Hugging Face encoder: a local folder, or a name found in an installed package or on the hub",
    )
    fields: tuple[TextField, ...] = Field(
        default=("title", "categories", "brand"),
        min_length=1,
        description="attributes that are joined, in this order; UniSRec's authors take title, category, brand",
    )
    style: TextStyle = Field(
        default="plain",
        description="how fields become one text: plain joins those that are there by a full stop; unisrec cleans and "
        "joins them as UniSRec's authors do, which their checkpoints were trained on",
    )
    drop_words: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of words left out of each text; UniSRec's pre-training asks for such a copy by itself",
    )
    max_tokens: int = Field(default=256, ge=8, description="longer texts are cut to this many tokens")
    pooling: TextPooling = Field(
        default="mean",
        description="the vector of a text: the mean of its tokens', or that of its first token (cls; UniSRec's "
        "authors, with BERT) or of its last",
    )

    def way(self) -> dict[str, Any]:
        """Return what decides, beside the encoder, what a text's vector is like; dropped words are left out of it."""
        return self.model_dump(mode="json", include={"fields", "style", "max_tokens", "pooling"})

    _distinct = field_validator("fields")(distinct)
