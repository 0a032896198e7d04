"""Immutable directories named by the hash of all that determines them, as their readers see them.

A directory without a valid manifest does not exist for any reader: what is being written gets its manifest last, see
:mod:`ckd.storage.draft`. A file that is not what was written is noticed before anything is read from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckd.storage import files
from ckd.storage.cache import forget, local_copy
from ckd.storage.errors import DamagedArtifact
from ckd.storage.location import Location, read
from ckd.storage.manifest import MANIFEST, parsed
from ckd.storage.trust import Signature, signature, trusted

MAKERS = {
    "corpus": "prepare",
    "text": "prepare",
    "teachers": "pretrain",
    "vectors": "precompute",
    "labels": "precompute",
    "agreement": "precompute",
    "runs": "distill",
}
"""Kind of artifact to the subcommand that makes it."""


@dataclass(frozen=True)
class Receipt:
    """What was written under one file name: size in bytes, SHA-256, rows (0 where rows mean nothing), facts."""

    bytes: int
    sha256: str
    rows: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form, as the manifest keeps it."""
        return {"bytes": self.bytes, "sha256": self.sha256, "rows": self.rows, "facts": dict(self.facts)}


@dataclass(frozen=True)
class Artifact:
    """A committed artifact: its directory and its manifest."""

    path: Location
    manifest: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The folder of the store that it is in."""
        return str(self.manifest["kind"])

    @property
    def key(self) -> str:
        """The whole key."""
        return str(self.manifest["key"])

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Everything the key was made from."""
        return dict(self.manifest["inputs"])

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the writer wanted remembered: statistics, timings, measurements."""
        return dict(self.manifest["facts"])

    @property
    def files(self) -> dict[str, Receipt]:
        """Receipts by file name, in order of name."""
        return {name: Receipt(**record) for name, record in sorted(self.manifest["files"].items())}

    def verify(self) -> dict[Path, Signature]:
        """Compare every file with its recorded digest; return what the files can be trusted by.

        Raises:
            DamagedArtifact: naming the first file that differs.
        """
        signatures = {}
        for name in self.files:
            path = self.local(name)
            # First, so that of a file that changes meanwhile it is that of before.
            before = signature(path)
            signatures[self.verified(name)] = before
        return signatures

    def sound(self, name: str) -> bool:
        """Return whether one file holds the bytes that were written, where it is stored."""
        try:
            return files.sha256_file(self.path / name) == self.manifest["files"][name]["sha256"]
        except FileNotFoundError:
            return False

    def verified(self, name: str) -> Path:
        """Return one file on this machine after comparing its bytes with the recorded digest, unless it is trusted.

        Raises:
            DamagedArtifact: the bytes differ.
        """
        path = self.local(name)
        if trusted(path) or self._as_recorded(path):
            return path
        if path == self.path / name:
            raise self._damaged(name)
        forget(path)
        return self.local(name)

    def local(self, name: str) -> Path:
        """Return one file on this machine: where it is stored, not compared with anything, or a copy of it.

        Raises:
            DamagedArtifact: what is stored elsewhere has other bytes than were written.
        """
        path = self.path / name
        if isinstance(path, Path):
            return path
        try:
            return local_copy(path, self.manifest["files"][name]["sha256"])
        except (ValueError, FileNotFoundError):
            raise self._damaged(name) from None

    def _as_recorded(self, path: Path) -> bool:
        return files.sha256_file(path) == str(self.manifest["files"][path.name]["sha256"])

    def _damaged(self, name: str) -> DamagedArtifact:
        return DamagedArtifact(
            f"{self.path / name} is damaged: its bytes are not those that were written; run `ckd verify --repair`, or "
            f"remove the folder {self.path} and run `ckd {MAKERS[self.kind]}` to make it again"
        )


def load_artifact(path: Location) -> Artifact | None:
    """Return the artifact in a directory, or None unless its manifest is whole and its files have their sizes.

    Raises:
        UserError: a newer version of ckd wrote it.
    """
    artifact = described(path)
    if artifact is None:
        return None
    expected = {name: receipt.bytes for name, receipt in artifact.files.items()}
    return artifact if expected.items() <= files.sizes(path).items() else None


def described(path: Location, manifest: str = MANIFEST) -> Artifact | None:
    """Return what a directory's manifest, or its spare copy, says that is in it, or None if that is damaged.

    Raises:
        UserError: a newer version of ckd wrote it.
    """
    try:
        text = read(path / manifest).decode()
    except (OSError, ValueError):
        return None
    content = parsed(text, path / manifest)
    return None if content is None or not _lists_files(content) else Artifact(path, content)


def _lists_files(content: Mapping[str, Any]) -> bool:
    try:
        return all(isinstance(Receipt(**record), Receipt) for record in content["files"].values())
    except (TypeError, AttributeError):
        return False
