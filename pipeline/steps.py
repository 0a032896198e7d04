"""What is still to do: for each step of a plan reuse, resume or compute, and why."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ckd.pipeline.plan import Pending, Plan, difference
from ckd.storage.artifact import Draft
from ckd.storage.keys import Address
from ckd.storage.progress import shards_done, training_states


@dataclass(frozen=True)
class Step:
    """One artifact of a plan.

    Attributes:
        command: the `ckd` command that makes it.
        what: its kind: corpus, text, teacher, labels, agreement or run.
        subject: teacher, domain, student as far as they apply.
        state: ``reuse``, ``resume (n of m shards)``, ``resume (after epoch n)`` or ``compute``.
        why: the reason, one phrase.
    """

    command: str
    what: str
    subject: str
    state: str
    why: str


def steps(plan: Plan) -> Iterator[Step]:
    """Yield the steps in the order in which they are done."""
    configuration = plan.configuration
    pretrained = any(plan.teacher(name).pretraining() is not None for name in configuration.teachers)
    for domain in [*(configuration.sources if pretrained else ()), *configuration.domains]:
        yield _step(plan, "prepare", "corpus", domain, partial(plan.corpus, domain))
    for domain, text in plan.texts():
        yield _step(plan, "prepare", "text", domain, partial(plan.text, domain, text))
    for teacher in configuration.teachers:
        yield from _teacher_steps(plan, teacher)
    for teacher in configuration.teachers:
        for domain in plan.labelled(teacher):
            subject = f"{teacher}, {domain}"
            yield _step(plan, "precompute", "labels", subject, partial(plan.labels, teacher, domain))
    for domain in configuration.domains:
        for one, other in plan.pairs(domain):
            subject = f"{one} and {other}, {domain}"
            yield _step(plan, "precompute", "agreement", subject, partial(plan.agreement, one, other, domain))
    for run in plan.runs():
        yield _step(plan, "distill", "run", str(run), partial(plan.run, run))


def _teacher_steps(plan: Plan, teacher: str) -> Iterator[Step]:
    if plan.teacher(teacher).pretraining() is not None:
        yield _step(plan, "pretrain", "teacher", f"{teacher}, pre-trained", partial(plan.pretrained, teacher))
    if plan.teacher(teacher).adaptation() is not None:
        for domain in plan.labelled(teacher):
            subject = f"{teacher}, adapted to {domain}"
            yield _step(plan, "pretrain", "teacher", subject, partial(plan.adapted, teacher, domain))
            for fold in plan.teacher(teacher).user_folds():
                address_of = partial(plan.adapted, teacher, domain, fold)
                yield _step(plan, "pretrain", "teacher", f"{subject}, {fold}", address_of)


def _step(plan: Plan, command: str, what: str, subject: str, address_of: Callable[[], Address]) -> Step:
    try:
        address = address_of()
    except Pending as pending:
        return Step(command, what, subject, "compute", str(pending))
    state, why = _state(plan, address)
    return Step(command, what, subject, state, why)


def _state(plan: Plan, address: Address) -> tuple[str, str]:
    if plan.store.find(address) is not None:
        return "reuse", f"the store has {address.short_key}, made from the same inputs"
    draft = plan.store.peek(address)
    reached = _reached(draft) if draft is not None else None
    writer = plan.store.writer(address)
    if reached is not None:
        return f"resume ({reached})", f"{writer} is at it" if writer else "an earlier run was stopped"
    if writer:
        return "compute", f"{writer} is at it"
    return "compute", _reason(plan, address)


def _reached(draft: Draft) -> str | None:
    if (shards := shards_done(draft)) is not None:
        return f"{shards[0]} of {shards[1]} shards"
    epochs = training_states(draft)
    return f"after epoch {next(iter(epochs))}" if epochs else None


def _reason(plan: Plan, address: Address) -> str:
    if (plan.store.root / address.directory).exists():
        return "the stored one is damaged: its manifest is missing or its files do not have their sizes"
    names = ("student", "domain", "domains", "distilled", "teacher", "step")
    nearest: list[str] | None = None
    for artifact in plan.store.all(address.kind):
        same_kind = all(
            artifact.inputs.get(name) == address.inputs.get(name) for name in names if name in address.inputs
        )
        same_kind = same_kind and _fold_number(artifact.inputs) == _fold_number(address.inputs)
        if address.kind == "labels":
            same_kind = artifact.path.parent == (plan.store.root / address.directory).parent
        changed = difference(address.inputs, artifact.inputs)
        if same_kind and (nearest is None or len(changed) < len(nearest)):
            nearest = changed
    if not nearest:
        return "not in the store"
    return f"changed since the stored one: {', '.join(_as_configured(name, address) for name in nearest)}"


def _fold_number(inputs: Mapping[str, Any]) -> int | None:
    """Return of which fold a teacher is; that of another one is another teacher, not one made otherwise."""
    number: int | None = inputs.get("fold", {}).get("number")
    return number


def _as_configured(name: str, address: Address) -> str:
    """Return an input of a run as the configuration calls it."""
    group, _, rest = name.partition(".")
    if address.kind != "runs" or not rest:
        return name
    sections = {"teaching": "distill", "training": "distill", "settings": f"students.{address.inputs['student']}"}
    return f"{sections.get(group, group)}.{rest}"
