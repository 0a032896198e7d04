"""The settings of a sweep: every point of the grid for every seed, all checked before anything is trained."""

import re
import shlex
from collections.abc import Iterator, Sequence

from ckd.pipeline.choice import EVERYTHING, Choice
from ckd.pipeline.commands import DEFAULT_FILE, Request
from ckd.pipeline.config.load import load_configuration
from ckd.pipeline.config.models import Configuration
from ckd.pipeline.config.overrides import Override, parse_override
from ckd.pipeline.named import plan_of
from ckd.pipeline.plan import Plan
from ckd.pipeline.sweep.grid import GridError, clashes, grid_points, parse_grid
from ckd.pipeline.sweep.plan import FREE, SharingPlan
from ckd.pipeline.sweep.runs import labels_of
from ckd.storage.errors import UserError
from ckd.storage.keys import canonical_json

_ONE_FOR_ALL = ("store", "cluster")
_SEEDS = 2**32

_ADVICE = re.compile(r"(?<=`)ckd \w+(?=`)")

Point = tuple[Override, ...]


def planned_points(
    request: Request, grids: Sequence[str], seeds: int | None, choice: Choice = EVERYTHING
) -> list[SharingPlan]:
    """Return the plan of every point, all points of the first seed first.

    Args:
        request: the configuration that the points vary.
        grids: the texts of ``--grid``.
        seeds: how many seeds, from the configuration's on; None for that one alone.
        choice: the students that are meant.

    Raises:
        UserError: values, points, seeds or names are wrong, or labels are missing; one line per problem.
    """
    points, configurations = _checked(request, grids, seeds)
    origins: dict[str, Plan] = {}
    plans = []
    for configuration in configurations:
        free = FREE - {"distill"} if configuration.labels.found_by == "name" else FREE
        bound = canonical_json(configuration.model_dump(mode="json", exclude=free))
        plans.append(SharingPlan(configuration, origins.setdefault(bound, plan_of(configuration))))
    for plan in plans:
        choice.check(plan.configuration)
    if lines := dict.fromkeys(_missing(request, points, plans, choice)):
        raise UserError("\n".join(lines))
    return [plan if not more else _reseeded(plan, more) for more in range(seeds or 1) for plan in plans]


def _checked(request: Request, grids: Sequence[str], seeds: int | None) -> tuple[list[Point], list[Configuration]]:
    axes, lines = _axes(grids)
    lines += clashes(axes)
    lines += _misplaced(axes, seeds)
    points = list(grid_points(axes))
    configurations: list[Configuration] = []
    complaints: dict[str, list[Point]] = {}
    for point in points:
        try:
            configurations.append(load_configuration(request.file, [*request.overrides, *point]))
        except UserError as error:
            for line in str(error).splitlines():
                complaints.setdefault(line, []).append(point)
    lines += [_located(line, wrong, points) for line, wrong in complaints.items()]
    largest = max((configuration.seed for configuration in configurations), default=0) + (seeds or 1) - 1
    if largest >= _SEEDS:
        lines.append(f"--seeds {seeds}: the last seed would be {largest}; seeds are below {_SEEDS}")
    if lines:
        raise UserError("\n".join(dict.fromkeys(lines)))
    return points, configurations


def _axes(grids: Sequence[str]) -> tuple[list[list[Override]], list[str]]:
    axes: list[list[Override]] = []
    lines: list[str] = []
    for text in grids:
        try:
            axes.append(parse_grid(text))
        except GridError as error:
            lines += error.args
    return axes, lines


def _misplaced(axes: Sequence[Sequence[Override]], seeds: int | None) -> Iterator[str]:
    for key in (axis[0].parts for axis in axes):
        if key[0] in _ONE_FOR_ALL:
            yield f"--grid {'.'.join(key)}: a sweep has one {key[0]}; give it with --set"
        if key == ("seed",) and seeds is not None:
            yield "--grid seed: --seeds chooses the seeds, too; use one of the two"


def _located(line: str, wrong: Sequence[Point], points: Sequence[Point]) -> str:
    """Return a complaint about some points with the values that only these have, as far as it does not name them."""
    shared = [override for override in wrong[0] if all(override in point for point in wrong)]
    if len(wrong) == len(points) or len(wrong) < sum(all(one in point for one in shared) for point in points):
        return line
    unnamed = [
        override.text for override in shared if not line.startswith(override.shown) and _matters(override, points)
    ]
    return f"{line} (with {', '.join(unnamed)})" if unnamed else line


def _matters(override: Override, points: Sequence[Point]) -> bool:
    return any(override not in point for point in points)


def _missing(request: Request, points: Sequence[Point], plans: Sequence[Plan], choice: Choice) -> Iterator[str]:
    """Yield a line for labels that are not there, with the command that makes them for the point that needs them."""
    for point, plan in zip(points, plans, strict=True):
        options = _options(request, point)
        for run in choice.runs(plan):
            try:
                labels_of(plan, run)
            except UserError as error:
                yield _completed(str(error), options)


def _completed(text: str, options: str) -> str:
    """Return a text with options added to the commands that it advises."""
    return _ADVICE.sub(lambda advice: advice[0] + options, text)


def _options(request: Request, point: Point) -> str:
    """Return the options with which other commands mean the labels of a point."""
    given = [*map(parse_override, request.overrides), *point]
    words = [] if request.file == DEFAULT_FILE else ["-c", str(request.file)]
    words += [word for override in given if override.parts[0] not in FREE for word in ("--set", override.text)]
    return "".join(f" {shlex.quote(word)}" for word in words)


def _reseeded(plan: SharingPlan, more: int) -> SharingPlan:
    configuration = plan.configuration.model_copy(update={"seed": plan.configuration.seed + more})
    return SharingPlan(configuration, plan.origin or plan)
