"""Settings of the item text vectors."""

from pydantic import Field, field_validator

from ckd.stages.settings import Published, Settings, TextField, TextPooling, distinct


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
    max_tokens: int = Field(default=256, ge=8, description="longer texts are cut to this many tokens")
    pooling: TextPooling = Field(
        default="mean", description="the vector of a text: mean over its tokens, or that of its first (cls) or last one"
    )

    _distinct = field_validator("fields")(distinct)
