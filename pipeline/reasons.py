"""Why something is to be computed: what differs from the nearest artifact of the store, as the configuration has it."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ckd.pipeline.plan import Plan
from ckd.pipeline.products import Product, corpus_product, known_address, products
from ckd.pipeline.report.run_settings import shown
from ckd.stages.text.settings import TextSettings
from ckd.storage.artifact import Artifact
from ckd.storage.folds import Fold
from ckd.storage.keys import Address
from ckd.storage.store import Store

NEW = "nothing of this kind in the store"
DAMAGED = "the stored one is damaged; `ckd verify` says what is wrong with it"

_ABSENT: Any = ...
_OF_FOLDS = "folds.teachers."
_WHOSE = ("student", "domain", "domains", "distilled", "teacher", "step")
"""Inputs that say whose artifact it is: with another one it is another thing, not the same made otherwise."""


class Change(NamedTuple):
    """One input of two artifacts; ``...`` where one of them has none of that name."""

    name: str
    stored: Any
    wanted: Any


def changes(wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> list[Change]:
    """Return the inputs, by dotted name and in order of it, in which two artifacts differ."""
    left, right = _flat(wanted), _flat(stored)
    names = sorted(left.keys() | right.keys())
    found = [Change(name, right.get(name, _ABSENT), left.get(name, _ABSENT)) for name in names]
    return [change for change in found if change.stored != change.wanted]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    return flat


def is_there(plan: Plan, address: Address) -> bool:
    """Return whether an address has a folder; where the store does not find it, that is a damaged artifact."""
    return plan.store.folder(address).exists()


def nearest(plan: Plan, product: Product, address: Address) -> Artifact | None:
    """Return the stored artifact of the same thing that differs from the wanted one in the fewest inputs, or None.

    One that the plan asks for as something else, such as another domain's corpus, is not the same thing.
    """
    if product.pair is not None:
        found = [one for one in plan.store.all(address.kind) if _same_pair(plan, product, one)]
    else:
        found = [one for one in plan.store.all(address.kind) if _same_thing(plan, one, address)]
    if found and address.kind in ("corpus", "text", "teachers"):
        others = {_key(other) for other in products(plan) if other.kind == product.kind}
        found = [one for one in found if one.key not in others]
    return min(found, key=lambda one: len(changes(address.inputs, one.inputs)), default=None)


def _same_thing(plan: Plan, artifact: Artifact, address: Address) -> bool:
    if address.kind == "labels":
        return bool(artifact.path.parent == plan.store.folder(address).parent)
    same = all(artifact.inputs.get(name) == address.inputs[name] for name in _WHOSE if name in address.inputs)
    # The teacher of another fold is another teacher.
    return same and _fold_number(artifact.inputs) == _fold_number(address.inputs)


def _same_pair(plan: Plan, product: Product, agreement: Artifact) -> bool:
    """Return whether an agreement is of labels that are kept under the names of a pair of teachers and their domain."""
    labels = [_stored(plan.store, "labels", key) for key in agreement.inputs["labels"]]
    folders = [one.path.parent for one in labels if one is not None]
    of = [plan.store.root / "labels" / f"teacher={name}" / f"domain={product.domain}" for name in product.pair or ()]
    return folders == of


def _fold_number(inputs: Mapping[str, Any]) -> int | None:
    number: int | None = inputs.get("fold", {}).get("number")
    return number


def _key(product: Product) -> str | None:
    address, _ = known_address(product)
    return None if address is None else address.key


def why(plan: Plan, product: Product, address: Address) -> list[str]:
    """Return why an artifact is to be computed, a line each: ``labels.top_k: 100 -> 50``, stored to wanted.

    Where an input is itself an artifact, the lines say what differs in that one.
    """
    if is_there(plan, address):
        return [DAMAGED]
    stored = nearest(plan, product, address)
    if stored is None:
        return [_elsewhere(plan.store, address) or NEW]
    lines = dict.fromkeys(_lines(plan, product, address.inputs, stored.inputs))
    return list(lines) or [f"key: {shown(stored.key)} -> {shown(address.key)}"]


def _elsewhere(store: Store, address: Address) -> str | None:
    """Return what is said of the very labels that are kept under other names."""
    for artifact in store.all(address.kind):
        if artifact.key == address.key:
            names = ", ".join(folder.name for folder in (artifact.path.parent.parent, artifact.path.parent))
            return f"the same labels are in the store under {names}: labels are found under these names alone"
    return None


def _lines(plan: Plan, product: Product, wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> Iterator[str]:
    if product.pair is not None:
        wanted, stored = (_by_name(product.pair, inputs) for inputs in (wanted, stored))
    for change in changes(_by_fold(wanted), _by_fold(stored)):
        part = _part(plan, product, change.name)
        deeper = [] if part is None else list(_within(plan, part, change))
        yield from deeper or [
            f"{_called(plan, product, change.name)}: {_value(change.stored)} -> {_value(change.wanted)}"
        ]


def _by_fold(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs with the teachers of folds by number, so that each is compared with its own."""
    if "folds" not in inputs:
        return dict(inputs)
    teachers = {str(number): files for number, files in enumerate(inputs["folds"]["teachers"], 1)}
    return {**inputs, "folds": {**inputs["folds"], "teachers": teachers}}


def _by_name(pair: tuple[str, str], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of an agreement with its labels by teacher."""
    return {**inputs, "labels": dict(zip(pair, inputs["labels"], strict=True))}


def _within(plan: Plan, part: Product, change: Change) -> Iterator[str]:
    """Yield what differs in an artifact that another one is made from."""
    if _ABSENT in (change.stored, change.wanted) or None in (change.stored, change.wanted):
        return
    address, _ = known_address(part)
    stored = _stored(plan.store, part.kind, change.stored)
    if address is not None and stored is not None:
        yield from _lines(plan, part, address.inputs, stored.inputs)
    elif part.kind != "teachers":  # those may be anybody's: their files are named instead
        gone = "the stored one is no longer there, so what differs in it is not known"
        yield f"{part.kind} of {part.subject}: {_value(change.stored)} -> {_value(change.wanted)} ({gone})"


def _stored(store: Store, kind: str, named: str) -> Artifact | None:
    """Return the artifact that an input names: by its key, a teacher by the digest of one of its files."""
    for artifact in store.all(kind):
        if named == artifact.key:
            return artifact
        if kind == "teachers" and any(named == receipt.sha256 for receipt in artifact.files.values()):
            return artifact
    return None


def _part(plan: Plan, product: Product, name: str) -> Product | None:
    """Return what one input of a product is, where that is an artifact itself."""
    group = name.partition(".")[0]
    if product.run is not None:
        return _part_of_run(plan, product, name)
    if product.domain is None:
        return None
    if product.pair is not None:
        teacher = name.removeprefix("labels.")
        return _found(plan, "labels", product.domain, teacher) if teacher in product.pair else None
    if name == "corpus":
        return corpus_product(plan, product.domain)
    if name == "text" and product.teacher is not None:
        text = plan.reads(product.teacher)
        return None if text is None else _found(plan, "text", product.domain, text=text)
    if product.teacher is None:
        return None
    if name.startswith(_OF_FOLDS):
        number = int(name.removeprefix(_OF_FOLDS).partition(".")[0])
        own = [fold for fold in plan.label_folds(product.teacher) if fold.number == number]
        return _found(plan, "teachers", product.domain, product.teacher, own[0]) if own else None
    if group not in ("teacher", "start"):
        return None
    adapted = product.kind != "teachers" and plan.teacher(product.teacher).adaptation() is not None
    return _found(plan, "teachers", product.domain if adapted else None, product.teacher, product.fold)


def _part_of_run(plan: Plan, product: Product, name: str) -> Product | None:
    for domain in product.run.domains if product.run else ():
        if name == f"corpora.{domain}":
            return corpus_product(plan, domain)
        for teacher in plan.taught_by(domain):
            if name == f"labels.{domain}.{teacher}":
                return _found(plan, "labels", domain, teacher)
    return None


def _found(
    plan: Plan,
    kind: str,
    domain: str | None,
    teacher: str | None = None,
    fold: Fold | None = None,
    text: TextSettings | None = None,
) -> Product | None:
    wanted = kind, domain, teacher, fold, text
    same = (one for one in products(plan) if (one.kind, one.domain, one.teacher, one.fold, one.text) == wanted)
    return next(same, None)


def _called(plan: Plan, product: Product, name: str) -> str:
    """Return an input as the configuration calls it, as far as it has a name for it."""
    group, _, rest = name.partition(".")
    if name == "format":
        return f"format of {product.kind}"
    if product.run is not None:
        return _of_run(name, product.run.student)
    if product.pair is not None:
        return name
    if product.kind == "corpus":
        return _of_corpus(plan.domain(str(product.domain))[0], name)
    if product.text is not None:
        return _of_text(plan, product, name)
    teacher = f"teachers.{product.teacher}"
    if product.kind == "teachers":
        return _of_training(plan, product, name)
    if group in ("kind", "scoring"):
        return f"{teacher}.{rest or group}"
    if group == "teacher":
        return f"{teacher} ({rest})"
    if name.startswith(_OF_FOLDS):
        number, _, role = name.removeprefix(_OF_FOLDS).partition(".")
        return f"{teacher}, fold {number} ({role})"
    if group == "folds":
        return f"{teacher}, folds ({rest})"
    return f"labels.{name}"


def _of_corpus(section: str, name: str) -> str:
    role, _, what = name.rpartition(".")
    if what in ("sha256", "reader"):
        return f"{section}.path ({role}{'' if what == 'sha256' else ', reader'})"
    return f"{section}.{name}"


def _of_text(plan: Plan, product: Product, name: str) -> str:
    group, _, rest = name.partition(".")
    if group in ("brought", "reader"):
        return f"{plan.domain(str(product.domain))[0]}.text_vectors"
    section = plan.section(product.text) if product.text is not None else "text"
    return f"{section}.encoder ({rest})" if group == "encoder" else f"{section}.{name}"


def _of_training(plan: Plan, product: Product, name: str) -> str:
    group, _, rest = name.partition(".")
    teacher = str(product.teacher)
    settings = plan.teacher(teacher)
    training = settings.pretraining() if product.step == "pretrain" else settings.adaptation()
    section = next((field for field, value in vars(settings).items() if value is training), str(product.step))
    names = {"settings": f"teachers.{teacher}.{section}.{rest}", "start": f"teachers.{teacher} ({rest})"}
    return names.get(group, f"teachers.{teacher}.{section}, {name}")


def _of_run(name: str, student: str) -> str:
    group, _, rest = name.partition(".")
    if name == "mask_history":
        return "evaluate.mask_history"
    if not rest:
        return name
    sections = {"teaching": "distill", "training": "distill", "settings": f"students.{student}"}
    return f"{sections.get(group, group)}.{rest}"


def as_configured(name: str, address: Address) -> str:
    """Return an input of a run as the configuration calls it, any other as it is."""
    return _of_run(name, address.inputs["student"]) if address.kind == "runs" and "." in name else name


def _value(value: Any) -> str:
    return "nothing" if value is _ABSENT else shown(value)
