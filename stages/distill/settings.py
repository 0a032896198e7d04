"""Settings of a student's training: the loss, the weighting, the curriculum, the optimiser."""

from difflib import get_close_matches
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, field_validator

from ckd.stages.settings import Settings

Confidence = Literal["target_probability", "target_rank", "certainty", "none"]
Consistency = Literal["overlap", "top_k_jaccard", "rank_biased_overlap", "none"]
LossName = Literal["in_batch", "top_k", "top_k_plus_student", "rank"]
Term = Literal["length", "popularity", "teacher_loss", "disagreement"]
Control = Literal["none", "shuffled", "one_hot"]
ItemStart = Literal["random", "teacher"]
Pacing = Literal["linear", "root", "step", "none"]

SCORING_LOSSES: tuple[LossName, ...] = ("in_batch", "top_k_plus_student")
"""Losses that ask a teacher for scores of items that its labels do not store."""
PERSISTENCE = 0.9
"""Chance that a reader of two lists goes on to the next rank; the first ten then have 86 % of the weight."""


class WeightingSettings(Settings):
    """How several teachers are weighed against each other, and one position against another."""

    confidence: Confidence = Field(
        default="target_probability",
        description="how sure a teacher is: exp(l(y)), 1/log2(1 + rank of y), 1 - entropy/log|V|, or none",
    )
    consistency: Consistency = Field(
        default="overlap",
        description="agreement with the other teachers: the probability that both give the items which both stored "
        "(what only one of them stored counts as none, so it is a lower bound), Jaccard index of their stored items, "
        "rank-biased overlap of their order, or none; 1 where only one teacher has a label",
    )
    persistence: float = Field(
        default=PERSISTENCE,
        gt=0,
        lt=1,
        description="p of rank_biased_overlap: the weight of each rank is p times that of the rank before it",
    )
    consistency_power: float = Field(
        default=1.0,
        ge=0,
        description="b in softmax((log c + b log s) / r); of two teachers s is the same, so it matters from three on",
    )
    softness: float = Field(default=1.0, gt=0, description="r in softmax((log c + b log s) / r)")
    gate_confidence: float = Field(default=0.0, ge=0, description="x in the instance gate c^x s^y")
    gate_consistency: float = Field(default=1.0, ge=0, description="y in the instance gate c^x s^y")


class CurriculumSettings(Settings):
    """In which order sequences are served."""

    difficulty: dict[str, float] = Field(
        default_factory=lambda: {"length": 1.0, "popularity": 1.0},
        description="weighted terms: length, popularity, teacher_loss, disagreement, or an SQL aggregate over a user's "
        "training rows of the view `labels`, such as avg(entropy); larger is harder",
    )
    pacing: Pacing = Field(
        default="root", description="how the served share of easiest sequences grows: linear, root, step, none"
    )
    start: float = Field(default=0.6, gt=0, le=1, description="share served in the first epoch")
    warmup: int = Field(default=5, ge=0, description="epochs after which all sequences are served")
    steps: int = Field(default=3, ge=1, description="number of equal rises with pacing `step`")

    @field_validator("difficulty")
    @classmethod
    def _some_term_or_aggregate(cls, difficulty: dict[str, float]) -> dict[str, float]:
        if not difficulty:
            raise ValueError("needs at least one term; switch the curriculum off with pacing: none")
        for term in difficulty:
            # A bare name that is no term would be an SQL column, which is no aggregate and fails after minutes.
            if term.isidentifier() and term not in get_args(Term):
                near = get_close_matches(term, get_args(Term), n=1)
                meant = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(
                    f"{term!r} is neither a term ({', '.join(get_args(Term))}) nor an SQL aggregate such as "
                    f"avg(entropy){meant}"
                )
        return difficulty


class DistillSettings(Settings):
    """Training of one student, with and without its teachers."""

    teachers: tuple[str, ...] | None = Field(
        default=None, description="names of the teachers to learn from; all of them by default"
    )
    alpha: float = Field(
        default=0.8, ge=0, le=1, description="share of the distillation loss; 0 trains on the truth alone"
    )
    temperature: float = Field(
        default=1.0, gt=0, description="softens teacher and student alike in all losses but rank"
    )
    teacher_temperature: dict[str, float] = Field(
        default_factory=dict,
        description="by name of a teacher: softens its distribution alone, beside temperature, in all losses but rank; "
        "1 for each that is not named. Confidence and consistency are those of the labels as they are stored",
    )
    loss: dict[LossName, float] = Field(
        default={"in_batch": 1.0, "top_k": 1.0},
        min_length=1,
        description="losses to sum, with their weights: in_batch, top_k, top_k_plus_student, rank",
    )
    teacher_items: int | None = Field(
        default=None,
        ge=1,
        description="of the items that a label stores, how many of the best are used; all by default",
    )
    taught_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of a step's labelled positions at which the teachers are heard, drawn at random at each "
        "step; what they say there counts for all, so that the mean over draws is the same. It saves time with the "
        "losses in_batch and top_k of students that score by item vectors",
    )
    student_items: int = Field(
        default=20,
        ge=1,
        description="the student's own best items that top_k_plus_student adds to the teacher's at every position, "
        "as the student ranks them at that step; of a kind that scores a sample of the items (fm, deepfm) the best of "
        "that sample",
    )
    rank_against: Literal["catalogue", "listed"] = Field(
        default="catalogue",
        description="what each choice of rank is made among: all items that the teacher has not listed before it, or "
        "the listed ones alone",
    )
    item_start: ItemStart = Field(
        default="random",
        description="where the item vectors (the table items) of a distilled student start: at random, or at the "
        "principal components of the teachers' item vectors, in each domain its own",
    )
    weighting: WeightingSettings = Field(default_factory=WeightingSettings)
    curriculum: CurriculumSettings = Field(default_factory=CurriculumSettings)
    control: Control = Field(
        default="none",
        description="for experiments, labels that should teach less: shuffled among positions, or one_hot, the "
        "teacher's best item alone (not with losses that need states)",
    )
    baseline: bool = Field(default=True, description="also train the same student without distillation")
    epochs: int = Field(default=100, ge=1, description="passes over the served sequences, at most")
    patience: int = Field(
        default=8, ge=1, description="epochs without a better NDCG@10 on validation before training stops"
    )
    batch_size: int = Field(default=128, ge=1, description="sequences per step")
    labels_in_memory: float = Field(
        default=8.0,
        ge=0,
        description="GB of stored items, log-probabilities and states, of all teachers of a domain together, that are "
        "held in memory; what is larger goes through a temporary file, from which the system reads as it is asked for. "
        "The batches are the same",
    )
    scratch: Path | None = Field(
        default=None, description="folder of that file, which has no name in it; beside the labels by default"
    )
    average: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay per step of the running mean of the weights, which is validated and kept; 0 takes the "
        "weights as they are",
    )

    @field_validator("loss")
    @classmethod
    def _weighted(cls, loss: dict[LossName, float]) -> dict[LossName, float]:
        if any(weight < 0 for weight in loss.values()) or not any(loss.values()):
            raise ValueError("weights must not be negative, and one must be above zero")
        return loss

    @field_validator("teacher_temperature")
    @classmethod
    def _above_zero(cls, temperatures: dict[str, float]) -> dict[str, float]:
        if any(temperature <= 0 for temperature in temperatures.values()):
            raise ValueError("temperatures must be above zero")
        return temperatures
