"""Settings of a domain: where its raw files are and how they become a corpus."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ckd.stages.settings import Settings

Column = Literal["user_id", "item_id", "timestamp", "title", "brand", "categories", "description"]
Format = Literal["tables", "unisrec", "recformer"]

FILTERED = ("unisrec", "recformer")
"""Formats whose authors filtered users and items before they wrote the files."""


class DomainSettings(Settings):
    """One domain (or source domain): raw files and the rules by which they are prepared."""

    path: Path = Field(description="folder with items.* and interactions.* (parquet, csv, tsv or jsonl)")
    format: Format = Field(
        default="tables",
        description="what the folder holds: tables (items.* and interactions.*), or a data set in the layout of a "
        "teacher's authors: unisrec (D.train.inter, D.text, ...) or recformer (train.json, smap.json, ...)",
    )
    columns: dict[Column, str] = Field(
        default_factory=dict,
        description="our column name to the name in the files, where they differ, e.g. {item_id: asin}",
    )
    k_core: int = Field(
        default=5,
        ge=1,
        description="users and items with fewer interactions are dropped, repeatedly, until none is left; "
        "if not given, 1 in the formats unisrec and recformer, whose files are filtered already",
    )
    max_rejected: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="share of raw rows that may be unusable before preparation refuses",
    )
    text_vectors: Path | None = Field(
        default=None,
        description="item text vectors made elsewhere, instead of those of text.encoder: a .parquet file with item_id "
        "and vector, a .npy matrix, or UniSRec's D.feat1CLS",
    )
    augmented_text_vectors: Path | None = Field(
        default=None,
        description="the same of texts with words dropped, for UniSRec's pre-training, e.g. D.feat2CLS",
    )

    @model_validator(mode="before")
    @classmethod
    def _filtered_once(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("format") in FILTERED:
            return {"k_core": 1, **values}
        return values

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield what has no effect: a column mapping of fixed names, augmented vectors of nothing."""
        if values.get("format") in FILTERED and values.get("columns"):
            yield f"columns has no effect with format {values['format']}, whose files have fixed names; remove it"
        if values.get("augmented_text_vectors") is not None and values.get("text_vectors") is None:
            yield "augmented_text_vectors needs text_vectors, the vectors of the whole texts by the same encoder"
