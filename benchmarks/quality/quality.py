"""The evidence: what distillation is worth, to which students, by which of its parts, at what cost.

Train and print one table, from the labels that `ckd precompute` of the same file has left in the store:

    ckd -c benchmarks/quality/two.yaml precompute
    python benchmarks/quality/quality.py benchmarks/quality/two.yaml all --seeds 3 --jobs 2
    python benchmarks/quality/quality.py benchmarks/quality/two.yaml students --seeds 3 --jobs 2
    python benchmarks/quality/quality.py benchmarks/quality/two.yaml ablation --seeds 3 --students sasrec
    python benchmarks/quality/quality.py benchmarks/quality/two.yaml items --seeds 3 --students sasrec
    python benchmarks/quality/quality.py benchmarks/quality/two.yaml bands --seeds 3 --students sasrec
    python benchmarks/quality/quality.py benchmarks/quality/two.yaml serving --seeds 3
    python benchmarks/quality/quality.py benchmarks/quality/two.yaml tune --seeds 1 --students gru4rec

`all` is `students` and `serving` of every student, and `ablation`, `items` and `bands` of the first one. `tune` tries
the grid of one student, four points, without and with teachers; its first two rows are the defaults. What is in the
store is not trained again, so each can be interrupted and repeated; `--no-train` prints what there is.
"""

import argparse
from pathlib import Path
from types import ModuleType

from bands import print_bands
from items import print_items
from runs import Experiment, only
from tables import METRICS, print_students
from variants import ABLATION, KEPT_ITEMS, NONE, Variant, by_teacher, recipes

from ckd.pipeline.plan import Plan
from ckd.storage.errors import UserError

STEPS = ("students", "ablation", "items", "bands", "serving", "tune")
OF_ALL = {"students": False, "ablation": True, "items": True, "bands": True, "serving": False}
"""The steps of `all`, and whether each is of the first student alone."""


def main() -> None:
    """Run one step, or all of them."""
    parser = argparse.ArgumentParser(description="What distillation is worth.")
    parser.add_argument("file", type=Path)
    parser.add_argument("step", choices=(*STEPS, "all"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--students", nargs="*", default=[])
    parser.add_argument("--domains", nargs="*", default=[])
    parser.add_argument("--variants", nargs="*", default=[], help="names of some; all by default")
    parser.add_argument("--metric", choices=METRICS, default="ndcg@10", help="of bands")
    parser.add_argument("--picture", type=Path, default=Path("build/serving.png"), help="of serving")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--no-train", action="store_true")
    arguments = parser.parse_args()
    if arguments.step in ("all", "serving"):
        _serving()  # what it lacks is said before days of training
    if arguments.step != "all":
        _run(arguments.step, arguments.students, arguments)
        return
    if arguments.variants:
        raise SystemExit("all: --variants names some of one step; run that step")
    students = arguments.students or [*_plan(_experiment(arguments, [])).configuration.students]
    for step, of_one in OF_ALL.items():
        print(f"\n## {step}\n")
        _run(step, students[:1] if of_one else students, arguments)


def _serving() -> ModuleType:
    import serving  # matplotlib is needed for the picture only

    return serving


def _experiment(arguments: argparse.Namespace, students: list[str]) -> Experiment:
    overrides = only(arguments.file, arguments.set, students, arguments.domains)
    return Experiment(arguments.file, overrides, arguments.seeds)


def _plan(experiment: Experiment) -> Plan:
    return Plan(experiment.request(Variant("as configured")).load())


def _run(step: str, students: list[str], arguments: argparse.Namespace) -> None:
    experiment = _experiment(arguments, students)
    plan = _plan(experiment)
    variants = _chosen(_variants(step, plan), arguments.variants)
    if not arguments.no_train:
        experiment.train(variants, arguments.jobs)
    found = experiment.find(variants)
    if step == "bands":
        for student in plan.configuration.students:
            print(f"\n{student}\n")
            print_bands(plan, found, student, variants[-1], arguments.metric)
    elif step == "serving":
        _serving().print_serving(plan, found, variants[-1], arguments.picture)
    elif step == "items":
        print_items(plan, found, [variant for variant in KEPT_ITEMS if variant in variants])
    else:
        print_students(plan, found, variants)


def _chosen(variants: list[Variant], names: list[str]) -> list[Variant]:
    """Return no distillation and the variants of some names; none named is all."""
    if unknown := set(names) - {variant.name for variant in variants}:
        known = ", ".join(repr(variant.name) for variant in variants)
        raise SystemExit(f"--variants: there is no {' and no '.join(map(repr, sorted(unknown)))}, only {known}")
    return [variant for variant in variants if not names or variant.name in (NONE.name, *names)]


def _variants(step: str, plan: Plan) -> list[Variant]:
    teachers = list(plan.configuration.teachers)
    if step == "ablation":
        return ABLATION
    if step == "items":
        return [NONE, *KEPT_ITEMS]
    if step == "tune":
        (name, student), *others = plan.configuration.students.items()
        if others:
            raise SystemExit("tune: name one student with --students")
        return recipes(name, student.kind)
    if step in ("bands", "serving"):
        return [NONE, by_teacher(teachers)[-1]]
    return by_teacher(teachers)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
