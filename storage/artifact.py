"""Immutable directories named by the hash of all that determines them, and how they come to be.

An artifact is written in a hidden ``.<name>.partial`` directory, file by file, each with a receipt that records
its size and digest. Its manifest is written last and one rename makes it visible, so a directory without a valid
manifest does not exist for any reader. A killed writer leaves the partial directory; the next writer trusts just
those files in it whose digest still matches their receipt.
"""

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ckd.storage import files
from ckd.storage.errors import DamagedArtifact, UserError
from ckd.storage.keys import SHORT, Address
from ckd.storage.lock import exclusive, living_holder
from ckd.storage.trust import Signature, signature, trusted

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = 1
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
_ENTRIES = {"kind", "key", "inputs", "files", "facts"}


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

    path: Path
    manifest: Mapping[str, Any]

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
            # First, so that of a file that changes meanwhile it is that of before.
            signatures[self.path / name] = signature(self.path / name)
            self.verified(name)
        return signatures

    def verified(self, name: str) -> Path:
        """Return the path of one file after comparing its bytes with the recorded digest, unless it is trusted.

        Raises:
            DamagedArtifact: the bytes differ.
        """
        path = self.path / name
        if not trusted(path) and files.sha256_file(path) != self.files[name].sha256:
            raise DamagedArtifact(
                f"{path} is damaged: its bytes are not those that were written; remove the folder {self.path} "
                f"and run `ckd {MAKERS[self.manifest['kind']]}` to recompute it"
            )
        return path


class Draft:
    """An artifact being written. Made by :meth:`Store.draft`; ends with :meth:`commit`."""

    def __init__(self, address: Address, partial: Path, final: Path) -> None:
        self.address = address
        self.partial = partial
        self._final = final
        self._receipts = partial / ".receipts"
        self._started = time.perf_counter()

    def add(
        self,
        name: str,
        fill: Callable[[Path], None],
        rows: int = 0,
        facts: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """Write one file durably and record its receipt; return the receipt.

        ``fill`` gets the path to write to. A file of that name that is already there is replaced.
        """
        path = self.partial / name
        self._receipt_path(name).unlink(missing_ok=True)
        files.write_durably(path, fill)
        receipt = Receipt(path.stat().st_size, files.sha256_file(path), rows, dict(facts or {}))
        files.write_text_durably(self._receipt_path(name), json.dumps(receipt.as_json()))
        return receipt

    def keep_only(self, names: Collection[str]) -> None:
        """Remove the files that an earlier writer added under other names."""
        for path in self._receipts.iterdir():
            if path.stem not in names:
                path.unlink()
                (self.partial / path.stem).unlink(missing_ok=True)

    def discard(self, name: str) -> None:
        """Remove one file that was added, if it was."""
        self._receipt_path(name).unlink(missing_ok=True)
        (self.partial / name).unlink(missing_ok=True)

    def receipt(self, name: str) -> Receipt | None:
        """Return the receipt of a file left by an earlier writer, if the file still has the recorded digest."""
        receipt = self.recorded(name)
        if receipt is None or files.sha256_file(self.partial / name) != receipt.sha256:
            return None
        return receipt

    def recorded(self, name: str) -> Receipt | None:
        """Return the receipt of a file if both are there and the size agrees; cheap, does not read the file."""
        try:
            receipt = Receipt(**json.loads(self._receipt_path(name).read_text()))
            same_size = (self.partial / name).stat().st_size == receipt.bytes
        except (OSError, ValueError, TypeError):
            return None
        return receipt if same_size else None

    def commit(
        self, facts: Mapping[str, Any] | None = None, device_seconds: float = 0.0, earlier_seconds: float = 0.0
    ) -> Artifact:
        """Write the manifest over all files added and make the artifact visible by one rename.

        Args:
            facts: what is to be remembered beside the files.
            device_seconds: of all writers together.
            earlier_seconds: wall clock of interrupted writers whose files are kept, added to that of this one.
        """
        receipts = {}
        for path in sorted(self._receipts.iterdir()):
            receipts[path.stem] = json.loads(path.read_text())
        manifest = {
            "schema": MANIFEST_SCHEMA,
            "kind": self.address.kind,
            "key": self.address.key,
            "inputs": dict(self.address.inputs),
            "files": receipts,
            "facts": dict(facts or {}),
            "tool": f"ckd {version('ckd')}",
            "wall_seconds": round(earlier_seconds + time.perf_counter() - self._started, 3),
            "device_seconds": round(device_seconds, 3),
        }
        for stray in self.partial.iterdir():
            if stray.is_file() and stray.name not in receipts:
                stray.unlink()
        text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False)
        files.write_text_durably(self.partial / MANIFEST, text + "\n")
        files.remove_directory(self._final)  # only an invalid directory can be there: see Store.draft
        files.move_directory(self.partial, self._final)
        # Only now: a kill before the rename must leave what a resumed run trusts.
        files.remove_directory(self._final / self._receipts.name)
        return Artifact(self._final, manifest)

    def _receipt_path(self, name: str) -> Path:
        return self._receipts / f"{name}.json"


class Store:
    """The directory that holds corpora, text vectors, teachers, labels and runs."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, address: Address) -> Artifact | None:
        """Return the committed artifact of an address, or None.

        Raises:
            UserError: a newer version of ckd wrote it.
        """
        artifact = load_artifact(self.root / address.directory)
        return artifact if artifact is not None and artifact.key == address.key else None

    def with_key(self, kind: str, key: str) -> Artifact | None:
        """Return the committed artifact of a whole key, or None; not of labels, whose folders tell whose they are.

        Raises:
            UserError: a newer version of ckd wrote it.
        """
        artifact = load_artifact(self.root / kind / key[:SHORT])
        return artifact if artifact is not None and artifact.key == key else None

    def all(self, kind: str) -> list[Artifact]:
        """Return every committed artifact of a kind, in order of path."""
        pattern = "*/*/*/manifest.json" if kind == "labels" else "*/manifest.json"
        folders = (path.parent for path in sorted((self.root / kind).glob(pattern)))
        found = (load_artifact(folder) for folder in folders if not folder.name.startswith("."))
        return [artifact for artifact in found if artifact is not None]

    def damaged(self, kind: str) -> list[Path]:
        """Return the directories of a kind that once were artifacts and are none now, in order of path."""
        pattern = "*/*/key=*" if kind == "labels" else "*"
        folders = (path for path in sorted((self.root / kind).glob(pattern)) if path.is_dir())
        return [path for path in folders if not path.name.startswith(".") and load_artifact(path) is None]

    def peek(self, address: Address) -> Draft | None:
        """Return what an interrupted writer left of an address, for reading only, or None."""
        partial = self._partial(address)
        return Draft(address, partial, self.root / address.directory) if partial.is_dir() else None

    @contextmanager
    def draft(self, address: Address, resume: bool = False) -> Iterator[Draft]:
        """Lock an address and give the draft to write into.

        Unless ``resume``, whatever an interrupted writer left is removed first.

        Raises:
            Busy: another process is writing this artifact.
        """
        final = self.root / address.directory
        with exclusive(self._lock(address), f"{address.kind} artifact {address.short_key}"):
            partial = self._partial(address)
            if not resume:
                files.remove_directory(partial)
            (partial / ".receipts").mkdir(parents=True, exist_ok=True)
            try:
                yield Draft(address, partial, final)
            finally:
                if not (resume and _holds_files(partial)):
                    files.remove_directory(partial)

    def writer(self, address: Address) -> str | None:
        """Return the living process that writes an address, in words, or None."""
        return living_holder(self._lock(address)) if self._partial(address).is_dir() else None

    def _lock(self, address: Address) -> Path:
        return self.root / "locks" / f"{'-'.join(address.directory.parts)}.lock"

    def _partial(self, address: Address) -> Path:
        final = self.root / address.directory
        return final.with_name(f".{final.name}.partial")


def _holds_files(partial: Path) -> bool:
    receipts = partial / ".receipts"
    return receipts.is_dir() and any(receipts.iterdir())


def load_artifact(path: Path) -> Artifact | None:
    """Return the artifact in a directory, or None unless its manifest is whole and its files have their sizes.

    Raises:
        UserError: a newer version of ckd wrote it.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        schema = manifest["schema"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if schema != MANIFEST_SCHEMA:
        raise UserError(
            f"{path / MANIFEST} has manifest schema {schema}, this ckd reads schema {MANIFEST_SCHEMA}: "
            "use the version of ckd that wrote it, or another store"
        )
    artifact = Artifact(path, manifest)
    try:
        whole = all((path / name).stat().st_size == receipt.bytes for name, receipt in artifact.files.items())
    except (OSError, KeyError, TypeError, AttributeError):
        return None
    return artifact if whole and manifest.keys() >= _ENTRIES else None
