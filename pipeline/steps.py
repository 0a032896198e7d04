"""What is still to do: for each step of a plan reuse, resume or compute, and why."""

from collections.abc import Iterator
from dataclasses import dataclass

from ckd.pipeline.named import NotByName
from ckd.pipeline.plan import Pending, Plan
from ckd.pipeline.products import Product, products
from ckd.pipeline.reasons import as_configured, changes, is_there, nearest
from ckd.storage.artifact import MAKERS
from ckd.storage.draft import Draft
from ckd.storage.errors import DamagedArtifact
from ckd.storage.keys import Address
from ckd.storage.progress import shards_done, training_states

COMPUTE, MISSING = "compute", "missing"


@dataclass(frozen=True)
class Step:
    """One artifact of a plan.

    Attributes:
        command: the `ckd` command that makes it.
        what: its kind: corpus, text, teacher, labels, agreement or run.
        subject: teacher, domain, student as far as they apply.
        state: ``reuse``, ``resume (n of m shards)``, ``resume (after epoch n)``, ``compute``, or ``missing``: of
            corpora and labels that are found by name, which no command makes.
        why: the reason, one phrase.
        product: what the plan asks for.
        address: of the artifact, if it can be known yet.
    """

    command: str
    what: str
    subject: str
    state: str
    why: str
    product: Product
    address: Address | None = None


def steps(plan: Plan) -> Iterator[Step]:
    """Yield the steps in the order in which they are done."""
    for product in products(plan):
        if product.kind != "vectors":  # those come with the labels
            yield _step(plan, product)


def _step(plan: Plan, product: Product) -> Step:
    command, what = MAKERS[product.kind], {"teachers": "teacher", "runs": "run"}.get(product.kind, product.kind)
    try:
        address = product.address()
    except (Pending, DamagedArtifact) as pending:
        return Step(command, what, product.subject, COMPUTE, str(pending), product)
    except NotByName as missing:
        state = COMPUTE if product.run is not None else MISSING
        return Step(command, what, product.subject, state, str(missing), product)
    if address is None:
        raise ValueError(f"{product} has no address")
    state, why = _state(plan, product, address)
    return Step(command, what, product.subject, state, why, product, address)


def _state(plan: Plan, product: Product, address: Address) -> tuple[str, str]:
    if plan.store.find(address) is not None:
        return "reuse", f"the store has {address.short_key}, made from the same inputs"
    draft = plan.store.peek(address)
    reached = _reached(draft) if draft is not None else None
    writer = plan.store.writer(address)
    if reached is not None:
        return f"resume ({reached})", f"{writer} is at it" if writer else "an earlier run was stopped"
    if writer:
        return COMPUTE, f"{writer} is at it"
    return COMPUTE, _reason(plan, product, address)


def _reached(draft: Draft) -> str | None:
    if (shards := shards_done(draft)) is not None:
        return f"{shards[0]} of {shards[1]} shards"
    epochs = training_states(draft)
    return f"after epoch {next(iter(epochs))}" if epochs else None


def _reason(plan: Plan, product: Product, address: Address) -> str:
    if is_there(plan, address):
        return "the stored one is damaged: its manifest is missing or its files do not have their sizes"
    stored = nearest(plan, product, address)
    if stored is None:
        return "not in the store"
    changed = [as_configured(change.name, address) for change in changes(address.inputs, stored.inputs)]
    return f"changed since the stored one: {', '.join(changed)}"
