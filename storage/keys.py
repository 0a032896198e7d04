"""How an artifact gets its name: the SHA-256 of everything that determines its content."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

SHORT = 16
"""Hex digits of a key that appear in a path; the manifest holds all 64."""


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN.

    Raises:
        TypeError, ValueError: the value holds something that has no canonical form (an object, NaN); guessing
            a name for it would let two different contents share one key.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def key_of(kind: str, inputs: Mapping[str, Any]) -> str:
    """Return the whole key, 64 hex digits, of what is made of some inputs.

    Raises:
        TypeError, ValueError: the inputs have no canonical form.
    """
    return hashlib.sha256(canonical_json({"kind": kind, "inputs": dict(inputs)}).encode()).hexdigest()


@dataclass(frozen=True)
class Address:
    """Where an artifact belongs and all that determines what it holds.

    Attributes:
        kind: the folder of the store: ``corpus``, ``text``, ``teachers``, ``vectors``, ``labels``,
            ``agreement`` or ``runs``.
        inputs: JSON-able declared values: keys of input artifacts, digests of files, settings that matter, the
            version of the format. Never paths, times, pickles or code.
        partitions: ``name=value`` folders between the kind and the key (labels only), for people and for SQL
            engines; they are not part of the key.
    """

    kind: str
    inputs: Mapping[str, Any]
    partitions: tuple[tuple[str, str], ...] = ()

    @cached_property
    def key(self) -> str:
        """The whole key, 64 hex digits."""
        return key_of(self.kind, self.inputs)

    @property
    def short_key(self) -> str:
        """The part of the key that appears in paths."""
        return self.key[:SHORT]

    @property
    def directory(self) -> PurePosixPath:
        """The artifact's directory, relative to the store."""
        parts = [f"{name}={value}" for name, value in self.partitions]
        leaf = f"key={self.short_key}" if self.partitions else self.short_key
        return PurePosixPath(self.kind, *parts, leaf)
