"""Settings of a domain: where its raw files are and how they become a corpus."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from ckd.stages.settings import Settings

Column = Literal["user_id", "item_id", "timestamp", "title", "brand", "categories", "description"]


class DomainSettings(Settings):
    """One domain (or source domain): raw files and the rules by which they are prepared."""

    path: Path = Field(description="folder with items.* and interactions.* (parquet, csv, tsv or jsonl)")
    columns: dict[Column, str] = Field(
        default_factory=dict,
        description="our column name to the name in the files, where they differ, e.g. {item_id: asin}",
    )
    k_core: int = Field(
        default=5,
        ge=1,
        description="users and items with fewer interactions are dropped, repeatedly, until none is left",
    )
    max_rejected: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="share of raw rows that may be unusable before preparation refuses",
    )
