"""Ranked lists made elsewhere, such as by a language model that recommends: a teacher without a network."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ckd.stages.settings import Located
from ckd.stages.teachers.frozen import named_file
from ckd.stages.teachers.settings import TeacherSettings

if TYPE_CHECKING:
    from ckd.stages.teachers.contract import Opening, RankedLists

BESIDE_RANKING = ("positions", "item_ids", "confidence")
"""Keys of the files that only the format dllm2rec has beside ``path``."""


class Settings(TeacherSettings):
    """Ranked lists made elsewhere, one for each user and position, with or without scores."""

    gives_lists: ClassVar[bool] = True

    kind: Literal["scores"] = "scores"
    path: Located = Field(
        description="file with the lists: .parquet, .csv, .tsv or .jsonl, or the ranking of dllm2rec; `{domain}` in it "
        "stands for the domain's name"
    )
    format: Literal["table", "dllm2rec"] = Field(
        default="table",
        description="table: rows of user_id, position and item_id with rank or score, or of user_id, position and the "
        "lists items and scores; dllm2rec: a matrix of item codes as text, one list a row",
    )
    confidence: Located | None = Field(
        default=None,
        description="dllm2rec: matrix of the same shape with the distance of each listed item; minus the distance is "
        "its raw score",
    )
    positions: Located | None = Field(
        default=None, description="dllm2rec: table with user_id and position of each row of the matrix, in its order"
    )
    item_ids: Located | None = Field(
        default=None,
        description="dllm2rec: .json with the item ids in order of the matrix's codes, or an object {item id: code}",
    )
    scores: Literal["logprob", "logit", "none"] = Field(
        description="logprob: scores are log-probabilities over the catalogue; logit: raw scores, whose softmax over "
        "the list shares out listed_mass; none: only the order counts, probability falls as 1/log2(1 + rank)"
    )
    listed_mass: float = Field(
        default=0.9,
        gt=0,
        lt=1,
        description="least probability of all listed items together, for logit and none; what remains is spread evenly "
        "over the unlisted items, none of which gets more than half of the last listed one's",
    )
    temperature: float = Field(default=1.0, gt=0, description="divides raw scores (logit)")
    missing: Literal["refuse", "skip"] = Field(
        default="refuse", description="what to do about positions of labels.splits that have no list"
    )

    @classmethod
    def conflicts(cls, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield files that the format lacks or has no use for, and a meaning that its scores can't have."""
        named = [key for key in BESIDE_RANKING if values[key] is not None]
        if values["format"] == "table":
            yield from (f"{key} belongs to format: dllm2rec; a table holds it itself" for key in named)
        elif values["format"] == "dllm2rec":
            yield from _conflicts_of_dllm2rec(named, values["scores"])

    def files(self, domain: str, where: str) -> Mapping[str, Path]:
        """Return the files of the lists, by role: ``path`` and those beside it."""
        keys = ("path", *(key for key in BESIDE_RANKING if getattr(self, key) is not None))
        return {key: named_file(getattr(self, key), domain, f"{where}.{key}") for key in keys}

    def scoring(self, gpu: Callable[[], bool]) -> dict[str, Any]:
        """Return what makes probabilities of the scores."""
        used = {"logprob": (), "logit": ("listed_mass", "temperature"), "none": ("listed_mass",)}[self.scores]
        return {key: getattr(self, key) for key in ("format", "scores", "missing", *used)}


def _conflicts_of_dllm2rec(named: list[str], scores: Any) -> Iterator[str]:
    missing = [key for key in ("positions", "item_ids") if key not in named]
    if missing:
        yield (
            f"format: dllm2rec needs {' and '.join(missing)}: its rows and codes do not say whose position and which "
            "item they are"
        )
    if scores == "logprob":
        yield "scores: logprob does not fit format: dllm2rec, whose confidence holds distances; use logit or none"
    if scores == "logit" and "confidence" not in named:
        yield "scores: logit needs confidence; without it only the order is known, scores: none"
    if scores == "none" and "confidence" in named:
        yield "confidence has no effect with scores: none; use logit, or leave it out"


def open_teacher(opening: "Opening") -> "RankedLists":
    """Read the lists and check them against the domain.

    Raises:
        UserError: a file can't be read, or something in it does not fit the domain or itself.
    """
    from ckd.stages.teachers.scores.read import read_lists

    return read_lists(opening.settings, opening.files, opening.corpus)
