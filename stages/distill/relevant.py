"""What of a student's settings can change a bit of its training: its key holds nothing else. Imports nothing heavy.

An option that plays no part, because what it belongs to is switched off, is left out. A measure that plays none is
``none``, which trains the same.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ckd.stages.distill.settings import DistillSettings, WeightingSettings
from ckd.stages.settings import Settings

_TEACHING = {
    *("alpha", "temperature", "loss", "teacher_items", "taught_share", "student_items"),
    *("rank_against", "item_start", "control", "weighting", "curriculum"),
}


def relevant_teaching(distill: DistillSettings, teachers: Collection[Collection[str]]) -> dict[str, Any]:
    """Return what matters of how a student is taught.

    Args:
        distill: of its training.
        teachers: names of those of each of its domains.
    """
    several = any(len(names) > 1 for names in teachers)
    played = distill.model_copy(update={"weighting": _measures_that_count(distill.weighting, several)})
    values = played.model_dump(mode="json", include=_TEACHING)
    values["teacher_temperature"] = _softened(distill, {name for names in teachers for name in names})
    # Every loss is looked up by its weight and passed over at zero; a term of weight zero adds 0 to each user's sum.
    values["loss"] = _weighted(distill.loss)
    values["curriculum"]["difficulty"] = _weighted(distill.curriculum.difficulty)
    if distill.control != "none" and {played.weighting.confidence, played.weighting.consistency} != {"none"}:
        # Students that were trained while a control's own labels were weighed have other keys.
        values["weighed"] = "without control"
    for name, matters in _OPTIONS.items():
        if not matters(played, several):
            _leave_out(values, name)
    return values


def relevant_student(student: Settings, domains: Collection[str]) -> dict[str, Any]:
    """Return what matters of a student's own settings: with one domain there is nothing to be joint with."""
    values = student.model_dump(mode="json")
    return values if len(domains) > 1 or "scope" not in values else values | {"scope": "per_domain"}


def _not_rank_alone(distill: DistillSettings, _: bool) -> bool:
    return any(weight for name, weight in distill.loss.items() if name != "rank")


def _is_paced(distill: DistillSettings, _: bool) -> bool:
    return distill.curriculum.pacing != "none"


def _has_confidence(distill: DistillSettings, _: bool) -> bool:
    return distill.weighting.confidence != "none"


def _has_consistency(distill: DistillSettings, _: bool) -> bool:
    return distill.weighting.consistency != "none"


def _among_several(_: DistillSettings, several: bool) -> bool:
    return several


def _teachers_differ(distill: DistillSettings, several: bool) -> bool:
    weighting = distill.weighting
    by_consistency = weighting.consistency != "none" and weighting.consistency_power > 0
    return several and (weighting.confidence != "none" or by_consistency)


_OPTIONS: Mapping[str, Callable[[DistillSettings, bool], bool]] = {
    # An order has no softness: no temperature is read by this loss.
    "temperature": _not_rank_alone,
    "teacher_temperature": _not_rank_alone,
    # At 1 nothing is drawn.
    "taught_share": lambda distill, _: distill.taught_share != 1,
    # Each is read by one loss.
    "student_items": lambda distill, _: bool(distill.loss.get("top_k_plus_student")),
    "rank_against": lambda distill, _: bool(distill.loss.get("rank")),
    # One teacher has nobody to agree with: s is 1.
    "weighting.consistency": _among_several,
    # Without a measure c or s is 1 everywhere, and 1 to any power is 1, its logarithm times anything 0.
    "weighting.gate_confidence": _has_confidence,
    "weighting.consistency_power": _has_consistency,
    "weighting.gate_consistency": _has_consistency,
    # It is the p of this measure.
    "weighting.persistence": lambda distill, _: distill.weighting.consistency == "rank_biased_overlap",
    # The softmax of one number, and that of equal ones, is the same however it is softened.
    "weighting.softness": _teachers_differ,
    # Without a curriculum no difficulty is computed and every epoch serves all; without a warm-up every epoch serves
    # all too, but in the order of difficulty, which makes other batches.
    "curriculum.difficulty": _is_paced,
    "curriculum.warmup": _is_paced,
    "curriculum.start": lambda distill, _: _is_paced(distill, _) and distill.curriculum.warmup > 0,
    # It is the number of rises of this pacing within the warm-up.
    "curriculum.steps": lambda distill, _: distill.curriculum.pacing == "step" and distill.curriculum.warmup > 0,
}
"""Option to whether it matters, given the settings and whether several teachers teach in some domain."""


def _measures_that_count(weighting: WeightingSettings, several: bool) -> WeightingSettings:
    # One teacher weighs 1 whatever its confidence is, so c is left to the gate. Both c and s to the power of 0 are 1.
    confident = several or weighting.gate_confidence > 0
    consistent = several and (weighting.consistency_power > 0 or weighting.gate_consistency > 0)
    off = {name: "none" for name, counts in (("confidence", confident), ("consistency", consistent)) if not counts}
    return weighting.model_copy(update=off)


def _softened(distill: DistillSettings, teachers: Collection[str]) -> dict[str, float]:
    own = distill.teacher_temperature.items()
    return {name: temperature for name, temperature in own if name in teachers and temperature != 1}


def _weighted(weights: Mapping[Any, float]) -> dict[str, float]:
    return {name: weight for name, weight in weights.items() if weight}


def _leave_out(values: dict[str, Any], name: str) -> None:
    *groups, last = name.split(".")
    for group in groups:
        values = values[group]
    del values[last]
