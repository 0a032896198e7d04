"""Which artifacts another one was made from, whatever configuration asked for it: its inputs name their keys."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ckd.storage.artifact import Artifact
from ckd.storage.formats import CURVE
from ckd.storage.keys import SHORT
from ckd.storage.location import Location
from ckd.storage.store import Store
from ckd.storage.upkeep import conditions

_KEY = re.compile(r"[0-9a-f]{64}")
_OPINION = ("kind", "scoring", "corpus", "text")
"""Inputs that labels and the item vectors of their teacher share, beside the teacher's files."""


@dataclass(frozen=True)
class Node:
    """One artifact, sound or not.

    Attributes:
        folder: its directory.
        kind: its kind.
        record: what its manifest or the spare copy says; None if neither says anything.
        sound: whether its manifest is whole and its files have their sizes.
        there: whether it is in its directory; else it was reopened and is not made again yet.
    """

    folder: Location
    kind: str
    record: Artifact | None
    sound: bool
    there: bool = True

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What it was made from, as far as that is known."""
        return {} if self.record is None else self.record.inputs


def nodes(store: Store) -> list[Node]:
    """Return every artifact of a store.

    Raises:
        UserError: a newer version of ckd wrote one, so it is not known what that refers to.
    """
    found = [
        Node(each.folder, each.kind, each.record, each.record is not None and not each.manifest and not each.files)
        for each in conditions(store)
    ]
    there = {node.folder for node in found}
    begun = [artifact for artifact in store.reopened() if artifact.path not in there]
    return found + [Node(artifact.path, artifact.kind, artifact, sound=False, there=False) for artifact in begun]


def short_keys(node: Node) -> set[str]:
    """Return the short forms of all keys that an artifact's inputs name, and of all other digests in them."""
    return {text[:SHORT] for text in _digests(node.inputs)}


def reached(every: Iterable[Node], roots: Iterable[Node]) -> set[Location]:
    """Return the folders of some artifacts and of all that they were made from, and that from what it was made.

    Trained teachers are named by the digests of their files; the item vectors of a teacher belong to its labels.
    """
    every = list(every)
    by_key, by_digest = defaultdict[str, list[Node]](list), defaultdict[str, list[Node]](list)
    for node in every:
        by_key[node.folder.name.removeprefix("key=")].append(node)
        for digest in _weights(node):
            by_digest[digest].append(node)
    vectors = [node for node in every if node.kind == "vectors"]
    found, todo = set[Location](), list(roots)
    while todo:
        node = todo.pop()
        if node.folder in found:
            continue
        found.add(node.folder)
        for text in _digests(node.inputs):
            todo += by_key[text[:SHORT]] + by_digest[text]
        if node.kind == "labels":
            todo += [other for other in vectors if _of_its_teacher(node.inputs, other.inputs)]
    return found


def _weights(node: Node) -> set[str]:
    """Return the digests of a trained teacher's files."""
    if node.kind != "teachers" or node.record is None:
        return set()
    return {receipt.sha256 for name, receipt in node.record.files.items() if name != CURVE}


def _of_its_teacher(labels: Mapping[str, Any], vectors: Mapping[str, Any]) -> bool:
    if any(labels.get(name) != vectors.get(name) for name in _OPINION):
        return False
    return vectors.get("teacher") in [labels.get("teacher"), *labels.get("folds", {}).get("teachers", [])]


def _digests(value: Any) -> set[str]:
    return {text for text in _texts(value) if _KEY.fullmatch(text)}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
