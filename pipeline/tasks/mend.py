"""Damaged artifacts made whole: from spare copies, or by the very commands that made them."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ckd.pipeline.device import chosen_device
from ckd.pipeline.plan import Plan
from ckd.pipeline.products import Product, known_address, may_be, products
from ckd.pipeline.report.run_settings import shown
from ckd.pipeline.tasks.inputs import corpus_of, prepare, text_of
from ckd.pipeline.tasks.precompute import agreement_of, encode_items, labels_of
from ckd.storage.artifact import MAKERS, Artifact, Receipt, load_artifact
from ckd.storage.draft import Draft
from ckd.storage.errors import Busy, UserError
from ckd.storage.formats import CURVE
from ckd.storage.labels import part_names
from ckd.storage.location import Location
from ckd.storage.manifest import MANIFEST, SPARE
from ckd.storage.progress import expect_shards
from ckd.storage.store import Store, address_of
from ckd.storage.upkeep import Condition

_DEAR = ("teachers", "runs")
"""Kinds whose training can take hours: it is not begun on the way."""


class Outcome(NamedTuple):
    """What became of a damaged file or folder: in words, and whether everything is again what was written."""

    path: Location
    what: str
    mended: bool


def mend(plan: Plan, found: list[Condition]) -> Iterator[Outcome]:
    """Make damaged artifacts whole, and go on with what an earlier call did not finish; yield what became of each.

    What is not of the plan's configuration is mended from spare copies only, and else left as it is.

    Raises:
        Busy: another process is writing one of them.
    """
    yield from _copied(plan.store, found)
    damaged = {condition.folder: condition for condition in found if condition.files or condition.record is None}
    begun = {artifact.path: artifact for artifact in plan.store.reopened()}
    unknown: list[tuple[Product, str]] = []
    for product in products(plan):
        # An address costs the digests of raw files and weights.
        if product.kind not in {each.kind for each in damaged.values()} | {each.kind for each in begun.values()}:
            continue
        address, reason = known_address(product)
        if address is None:
            unknown.append((product, str(reason)))
            continue
        folder = plan.store.folder(address)
        condition, former = damaged.pop(folder, None), begun.pop(folder, None)
        if condition is not None or former is not None:
            yield _mended(plan, product, folder, condition, former)
    for condition in damaged.values():
        yield Outcome(condition.folder, _left(plan, condition, unknown), False)
    for former in begun.values():
        yield Outcome(former.path, f"a repair of it was begun; {_needs(former)}", False)


def _copied(store: Store, found: list[Condition]) -> Iterator[Outcome]:
    """Mend what one of a manifest's two copies suffices for."""
    for condition in found:
        if condition.record is None:
            continue
        if condition.spare and not condition.manifest:
            store.copy_manifest(condition.folder)
            yield Outcome(condition.folder / SPARE, "written anew from the manifest", True)
        if condition.manifest and not condition.files:
            store.restore(condition.folder)
            yield Outcome(condition.folder / MANIFEST, "restored from its spare copy", True)


def _mended(
    plan: Plan, product: Product, folder: Location, condition: Condition | None, former: Artifact | None
) -> Outcome:
    record = former if condition is None or condition.record is None else condition.record
    if product.kind in _DEAR:
        if condition is not None and {*condition.files} == {CURVE} and load_artifact(folder) is not None:
            return Outcome(folder / CURVE, "left as it is, it decides nothing; what it is of stays in use", False)
        if record is not None:
            plan.store.withdraw(record)
        command = MAKERS[product.kind]
        return Outcome(folder, f"taken out of use, its files stay; run `ckd {command}` to train it again", False)
    try:
        if product.kind == "labels":
            if condition is not None and condition.record is not None:
                _reopen(plan.store, condition.record, condition.files)
        elif record is not None:
            plan.store.withdraw(record)
        artifact = _made(plan, product)
    except Busy:
        raise
    except UserError as error:
        return Outcome(folder, f"cannot be made again: {error}", False)
    return _compared(folder, None if record is None else record.files, artifact)


def _reopen(store: Store, record: Artifact, damaged: Mapping[str, str]) -> None:
    store.reopen(record, list(damaged))
    draft: Draft | None = store.peek(address_of(record))
    if draft is not None:
        expect_shards(draft, len(part_names(record)))


def _made(plan: Plan, product: Product) -> Artifact | None:
    domain = str(product.domain)
    if product.kind == "corpus":
        return prepare(plan, domain)
    if product.text is not None:
        device = chosen_device(plan.configuration.device)
        text_of(plan, domain, product.text, corpus_of(plan, domain), device)
        return plan.store.find(plan.text(domain, product.text))
    if product.kind == "vectors":
        return encode_items(plan, str(product.teacher), domain, product.fold)
    if product.pair is not None:
        return agreement_of(plan, *product.pair, domain)
    return labels_of(plan, str(product.teacher), domain)


def _compared(folder: Location, before: Mapping[str, Receipt] | None, artifact: Artifact | None) -> Outcome:
    if artifact is None:
        return Outcome(folder, "was not made again", False)
    if before is None:
        return Outcome(folder, "made again; no manifest tells what it held before", True)
    after = artifact.files
    other = sorted(name for name in before.keys() | after.keys() if _digest(before, name) != _digest(after, name))
    if not other:
        return Outcome(folder, "made again, byte for byte what it was", True)
    return Outcome(
        folder,
        f"MADE AGAIN WITH OTHER BYTES THAN IT HAD in {', '.join(other)}: here and now the same inputs give another "
        "result, by another version of a library or another machine; what was made from it before does not match it",
        False,
    )


def _digest(files: Mapping[str, Receipt], name: str) -> str | None:
    return files[name].sha256 if name in files else None


def _left(plan: Plan, condition: Condition, unknown: list[tuple[Product, str]]) -> str:
    inputs = None if condition.record is None else condition.record.inputs
    for product, reason in unknown:
        if product.kind == condition.kind and may_be(plan, product, condition.folder, inputs):
            return f"left as it is: it may be of this configuration, but {reason}"
    if condition.record is None or condition.kind != "labels":
        return "left as it is: it is not of this configuration"
    return f"left as it is: it is not of this configuration; {_needs(condition.record)}"


def _needs(labels: Artifact) -> str:
    """Return what the configuration would have to name for labels to be made again."""
    inputs: Mapping[str, Any] = labels.inputs
    files = ", ".join(f"{role} {shown(digest)}" for role, digest in inputs["teacher"].items())
    teacher = f"the teacher of kind {inputs['kind']}" + (f" with the files {files}" if files else "")
    text = "" if inputs["text"] is None else f" and text vectors {inputs['text'][:16]}"
    name, domain = (folder.name.partition("=")[2] for folder in (labels.path.parent.parent, labels.path.parent))
    return (
        f"it can be made again with a configuration that names {teacher} {name}, and in which {domain} has the corpus "
        f"{inputs['corpus'][:16]}{text}"
    )
