"""What of a store no configuration and no run refers to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ckd.pipeline.plan import Plan
from ckd.pipeline.products import Product, corpus_product, known_address, may_be, products
from ckd.storage import files
from ckd.storage.artifact import MAKERS, Artifact, described, load_artifact
from ckd.storage.draft import FORMER
from ckd.storage.location import Location, below, matching
from ckd.storage.reach import Node, nodes, reached, short_keys
from ckd.storage.runs import called
from ckd.storage.store import Store, final_of
from ckd.storage.upkeep import is_key

WRITING = ".*.writing"
"""What a killed process leaves of a single file."""


@dataclass(frozen=True)
class Garbage:
    """Something that may go.

    Attributes:
        path: a folder, or a file.
        what: its path in the store, and in words where that does not tell.
        why: the reason, one phrase.
        bytes: what it takes.
        folder: of the artifact that it is, or is in; None for a lock.
    """

    path: Location
    what: str
    why: str
    bytes: int
    folder: "Location | None"


@dataclass(frozen=True)
class _Wanted:
    """What configurations ask for: folders of known addresses, and products of which none is known, with the reason."""

    folders: set[Location] = field(default_factory=set)
    unknown: list[tuple[Plan, Product, str]] = field(default_factory=list)


def find_garbage(plans: Sequence[Plan], runs: bool) -> tuple[list[Garbage], list[str]]:
    """Return what may go, in the order in which it may, and what was kept for want of knowledge, a line each.

    Args:
        plans: of all configurations that count, which have one store.
        runs: whether runs that none of them asks for count as garbage too.

    Raises:
        UserError: a newer version of ckd wrote something in the store.
    """
    store = plans[0].store
    every = nodes(store)
    wanted = _wanted(plans)
    notes: dict[str, None] = {}
    roots = [node for node in every if node.folder in wanted.folders or (node.kind == "runs" and not runs)]
    for plan, product, reason in wanted.unknown:
        kept = [node for node in every if node.kind == product.kind and may_be(plan, product, *_known(node))]
        if kept:
            what = f"{len(kept)} {product.kind} that may be it" if len(kept) > 1 else f"{kept[0].folder} that may be it"
            notes[f"kept {what}: {product.kind} of {product.subject}: {reason}"] = None
        roots += kept
    alive = reached(every, roots)
    named = {key for node in every if node.folder in alive for key in short_keys(node)}
    found = [_artifact(store, node) for node in every if node.there and node.folder not in alive]
    found += _partials(store, wanted, alive, named)
    gone = {each.path for each in found}
    found += _single_files(store, gone)
    order = [*reversed(MAKERS), "locks"]
    return sorted(found, key=lambda each: order.index(below(each.path, store.root)[0])), list(notes)


def _known(node: Node) -> tuple[Location, dict[str, object] | None]:
    return node.folder, None if node.record is None else dict(node.record.inputs)


def _wanted(plans: Sequence[Plan]) -> _Wanted:
    wanted = _Wanted()
    for plan in plans:
        broken = set[str]()
        sources = [corpus_product(plan, domain) for domain in plan.configuration.sources]
        for product in [*sources, *products(plan)]:
            address, reason = known_address(product)
            if product.teacher in broken:
                # The digest of a damaged file gives another key than that of the labels which are there.
                address, reason = None, f"teacher {product.teacher} is damaged; run `ckd verify --repair`"
            if address is None:
                wanted.unknown.append((plan, product, str(reason)))
                continue
            wanted.folders.add(plan.store.folder(address))
            trained = plan.store.find(address) if product.kind == "teachers" else None
            if trained is not None and not all(trained.sound(name) for name in trained.files):
                broken.add(str(product.teacher))
        _runs_of(plan, broken, wanted)
    return wanted


def _runs_of(plan: Plan, broken: set[str], wanted: _Wanted) -> None:
    """Add the distilled runs of damaged teachers, whose keys are not to be known either."""
    for product in products(plan) if broken else ():
        if product.run is not None and product.run.distilled:
            wanted.unknown.append((plan, product, "a teacher of it is damaged; run `ckd verify --repair`"))


def _artifact(store: Store, node: Node) -> Garbage:
    words = called_in(node.record) if node.record is not None else ""
    why = "no configuration asks for it" if node.kind == "runs" else "no configuration and no run refers to it"
    why = why if node.sound else f"damaged, and {why}"
    name = "/".join(below(node.folder, store.root))
    return Garbage(node.folder, f"{name} {words}".rstrip(), why, files.bytes_below(node.folder), node.folder)


def called_in(record: Artifact) -> str:
    """Return what a run is, in parentheses; of other artifacts nothing, for their path tells or nothing does."""
    return called(record).partition(" ")[2] if record.kind == "runs" else ""


def _partials(store: Store, wanted: _Wanted, alive: set[Location], named: set[str]) -> Iterator[Garbage]:
    for path, writer in store.partials():
        final = final_of(path)
        if writer is not None or not is_key(final):
            continue
        finished = load_artifact(final) is not None and described(path, FORMER) is None
        if finished:
            why = "left beside the finished artifact"
        elif (
            final in wanted.folders
            or final in alive
            or final.name.removeprefix("key=") in named
            or any(_may_become(store, plan, product, path, final) for plan, product, _ in wanted.unknown)
        ):
            continue
        else:
            why = "interrupted, and no configuration would go on with it"
        yield Garbage(path, "/".join(below(path, store.root)), why, files.bytes_below(path), final)


def _may_become(store: Store, plan: Plan, product: Product, path: Location, final: Location) -> bool:
    former = described(path, FORMER)
    kind = below(final, store.root)[0]
    return product.kind == kind and may_be(plan, product, final, None if former is None else former.inputs)


def _single_files(store: Store, gone: set[Location]) -> Iterator[Garbage]:
    writers = dict(store.partials())
    folders = [folder for kind in MAKERS for folder in store.folders(kind)]
    for folder in [*folders, *writers]:
        if folder in gone or writers.get(folder):
            continue
        for path in [*matching(folder, WRITING), *matching(folder, f".receipts/{WRITING}")]:
            name = "/".join(below(path, store.root))
            yield Garbage(path, name, "half a file of a killed process", files.bytes_below(path), final_of(folder))
    for path in store.idle_locks():
        name = "/".join(below(path, store.root))
        yield Garbage(path, name, "nobody holds it, and nothing is there to lock", files.bytes_below(path), None)
