"""Every artifact that a configuration asks for, whether its address can be known yet or not."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ckd.pipeline.plan import Pending, Plan, Run
from ckd.stages.text.settings import TextSettings
from ckd.storage.errors import UserError
from ckd.storage.folds import Fold
from ckd.storage.keys import Address
from ckd.storage.location import Location

Inputs = Mapping[str, Any]


@dataclass(frozen=True)
class Product:
    """One artifact of a plan.

    Attributes:
        kind: of artifact, as the store's folders are called.
        subject: teacher, domain, student as far as they apply, in words.
        address: gives its address.

            Raises:
                Pending: what it is made from has not been made yet.
                UserError: what it is made from cannot be read.
        domain, teacher, pair, fold, text, run: what it is of, as far as they apply; ``pair`` are two teachers.
        step: of a trained teacher: ``pretrain`` or ``adapt``.
    """

    kind: str
    subject: str
    address: Callable[[], Address | None] = field(repr=False, compare=False)
    domain: str | None = None
    teacher: str | None = None
    fold: Fold | None = None
    text: TextSettings | None = None
    run: Run | None = None
    step: str | None = None
    pair: tuple[str, str] | None = None


def products(plan: Plan) -> Iterator[Product]:
    """Yield the artifacts of a plan, each after those that it is made from."""
    configuration = plan.configuration
    pretrained = plan.by_inputs and any(plan.teacher(name).pretraining() is not None for name in configuration.teachers)
    for domain in [*(configuration.sources if pretrained else ()), *configuration.domains]:
        yield corpus_product(plan, domain)
    for domain, text in plan.texts():
        yield Product("text", domain, partial(plan.text, domain, text), domain, text=text)
    for teacher in configuration.teachers if plan.by_inputs else ():
        yield from _trained(plan, teacher)
    for teacher in configuration.teachers:
        for domain in plan.labelled(teacher):
            yield from _said(plan, teacher, domain)
    for domain in configuration.domains if plan.by_inputs else ():
        for one, other in plan.pairs(domain):
            address = partial(plan.agreement, one, other, domain)
            yield Product("agreement", f"{one} and {other}, {domain}", address, domain, pair=(one, other))
    for run in plan.runs():
        yield Product("runs", str(run), partial(plan.run, run), run=run)


def corpus_product(plan: Plan, domain: str) -> Product:
    """Return the corpus of a domain or source domain."""
    return Product("corpus", domain, partial(plan.corpus, domain), domain)


def _trained(plan: Plan, teacher: str) -> Iterator[Product]:
    if plan.teacher(teacher).pretraining() is not None:
        address = partial(plan.pretrained, teacher)
        yield Product("teachers", f"{teacher}, pre-trained", address, teacher=teacher, step="pretrain")
    if plan.teacher(teacher).adaptation() is not None:
        for domain in plan.labelled(teacher):
            for fold in (None, *plan.teacher(teacher).user_folds()):
                subject = f"{teacher}, adapted to {domain}" + ("" if fold is None else f", {fold}")
                address = partial(plan.adapted, teacher, domain, fold)
                yield Product("teachers", subject, address, domain, teacher, fold, step="adapt")


def _said(plan: Plan, teacher: str, domain: str) -> Iterator[Product]:
    subject = f"{teacher}, {domain}"
    if plan.by_inputs and plan.teacher(teacher).encodes_items:
        for fold in (None, *plan.label_folds(teacher)):
            title = subject if fold is None else f"{subject}, {fold}"
            yield Product("vectors", title, partial(plan.item_vectors, teacher, domain, fold), domain, teacher, fold)
    yield Product("labels", subject, partial(plan.labels, teacher, domain), domain, teacher)


def known_address(product: Product) -> tuple[Address | None, str | None]:
    """Return the address of a product, or why it cannot be known."""
    try:
        return product.address(), None
    except (Pending, UserError) as error:
        return None, str(error)


def may_be(plan: Plan, product: Product, folder: Location, inputs: Inputs | None) -> bool:
    """Return whether an artifact may be a product whose address cannot be known.

    Args:
        plan: of the product.
        product: what the plan asks for.
        folder: of the artifact, which is of the same kind.
        inputs: of the artifact; None if it is so damaged that they are not known.
    """
    if product.kind == "labels":
        names = f"teacher={product.teacher}", f"domain={product.domain}"
        return (folder.parent.parent.name, folder.parent.name) == names
    if inputs is None or product.kind in ("corpus", "agreement"):
        return True
    if product.run is not None:
        of = {"student": product.run.student, "domains": list(product.run.domains), "distilled": product.run.distilled}
        return all(inputs.get(name, value) == value for name, value in of.items())
    if product.teacher is not None:
        name = "teacher" if product.kind == "teachers" else "kind"
        if inputs.get(name) != plan.configuration.teachers[product.teacher].kind:
            return False
        if inputs.get("step") != product.step:
            return False
    corpus = None if product.domain is None else known_address(corpus_product(plan, product.domain))[0]
    return corpus is None or inputs.get("corpus") == corpus.key
