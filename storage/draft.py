"""An artifact while it is written.

It is written in a hidden ``.<name>.partial`` directory, file by file, each with a receipt that records its size and
digest. Its manifest is written last and one rename makes it visible. A killed writer leaves the partial directory; the
next writer trusts just those files in it whose digest still matches their receipt.

In an object store, which knows no rename, all files are copied to their place and the manifest is put there last.
"""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ckd.storage import files
from ckd.storage.artifact import Artifact, Receipt
from ckd.storage.cache import local_copy
from ckd.storage.disk import Fill
from ckd.storage.errors import DamagedArtifact
from ckd.storage.keys import Address, canonical_json
from ckd.storage.location import Location, inside, read
from ckd.storage.manifest import MANIFEST, SPARE, content_of, parsed, written

RECEIPTS = ".receipts"
_RECEIPT, _DIGEST, _JSON = "receipt", "digest", ".json"
FORMER = "manifest.former.json"
"""In a draft that mends a damaged artifact: the manifest of that artifact."""


class Draft:
    """An artifact being written. Made by :meth:`ckd.storage.store.Store.draft`; ends with :meth:`commit`.

    Args:
        address: of the artifact.
        partial: where it is written.
        final: where it will be.
        still_mine: raises Busy if another process is the writer by now; who does not commit needs none.
    """

    def __init__(
        self, address: Address, partial: Location, final: Location, still_mine: Callable[[], None] = lambda: None
    ) -> None:
        self.address = address
        self.partial = partial
        self._final = final
        self._still_mine = still_mine
        self._added: set[str] = set()
        self._receipts = partial / RECEIPTS
        self._started = time.perf_counter()

    def add(self, name: str, fill: Fill, rows: int = 0, facts: Mapping[str, Any] | None = None) -> Receipt:
        """Write one file durably and record its receipt; return the receipt.

        ``fill`` gets the path to write to. A file of that name that is already there is replaced.
        """
        files.remove_file(self._receipt_path(name))
        written = files.write_durably(self.partial / name, fill)
        receipt = Receipt(written.bytes, written.sha256, rows, dict(facts or {}))
        self._record(name, receipt)
        return receipt

    def adopt(self, artifact: Artifact, name: str) -> None:
        """Take one file, as it is recorded there, over from a committed artifact of the same address."""
        files.duplicate(artifact.path / name, self.partial / name)
        self._record(name, artifact.files[name])

    def keep_only(self, names: Collection[str]) -> None:
        """Remove the files that an earlier writer added under other names."""
        for name in _receipts_in(self._receipts):
            if name not in names:
                self.discard(name)

    def discard(self, name: str) -> None:
        """Remove one file that was added, if it was."""
        self._added.discard(name)
        files.remove_file(self._receipt_path(name))
        files.remove_file(self.partial / name)

    def receipt(self, name: str) -> Receipt | None:
        """Return the receipt of a file left by an earlier writer, if the file still has the recorded digest."""
        receipt = self.recorded(name)
        if receipt is None or files.sha256_file(self.partial / name) != receipt.sha256:
            return None
        return receipt

    def recorded(self, name: str) -> Receipt | None:
        """Return the receipt of a file if both are there and the size agrees; cheap, does not read the file."""
        receipt = _receipt(self._receipt_path(name))
        try:
            return receipt if receipt and (self.partial / name).stat().st_size == receipt.bytes else None
        except (OSError, TypeError):
            return None

    def former(self) -> dict[str, Any] | None:
        """Return what the manifest of the artifact said that this draft mends, or None if it mends none."""
        try:
            text = read(self.partial / FORMER).decode()
        except (OSError, ValueError):
            return None
        manifest = parsed(text, self.partial / FORMER)
        return content_of(manifest) if manifest is not None and manifest["key"] == self.address.key else None

    def local(self, name: str, receipt: Receipt) -> Path:
        """Return a file that was added as one of this machine: itself, or a copy of it."""
        path = self.partial / name
        return path if isinstance(path, Path) else local_copy(path, receipt.sha256)

    def commit(
        self, facts: Mapping[str, Any] | None = None, device_seconds: float = 0.0, earlier_seconds: float = 0.0
    ) -> Artifact:
        """Write the manifest over all files added and make the artifact visible by one rename.

        Args:
            facts: what is to be remembered beside the files.
            device_seconds: of all writers together.
            earlier_seconds: wall clock of interrupted writers whose files are kept, added to that of this one.

        Raises:
            DamagedArtifact: a file is not there as it was added, or its receipt isn't.
            Busy: another process has taken over as the writer.
        """
        self._still_mine()
        receipts = self._all_recorded()
        former = self.former()
        if former is not None and _digests(former["files"]) == _digests(receipts):
            content = former  # all its files are there again: the artifact is what it was
        else:
            content = {
                "kind": self.address.kind,
                "key": self.address.key,
                "inputs": dict(self.address.inputs),
                "files": receipts,
                "facts": dict(facts or {}),
                "tool": f"ckd {version('ckd')}",
                "wall_seconds": round(earlier_seconds + time.perf_counter() - self._started, 3),
                "device_seconds": round(device_seconds, 3),
            }
        text = written(content)
        for stray in inside(self.partial):
            if stray.is_file() and stray.name not in (*receipts, FORMER):
                files.remove_file(stray)
        for name in (SPARE, MANIFEST):
            files.write_text_durably(self.partial / name, text)
        self._still_mine()
        # Only an invalid directory can be there: see Store.draft.
        files.remove_directory(self._final, MANIFEST)
        files.move_directory(self.partial, self._final, MANIFEST)
        # Only now: a kill before the rename must leave what a resumed run trusts.
        files.remove_directory(self._final / RECEIPTS)
        files.remove_file(self._final / FORMER)
        manifest = parsed(text, self._final)
        if manifest is None:
            raise ValueError(f"the manifest of {self._final} does not read back as it was written")
        return Artifact(self._final, manifest)

    def _record(self, name: str, receipt: Receipt) -> None:
        self._added.add(name)
        content = {_RECEIPT: receipt.as_json(), _DIGEST: _digest(receipt)}
        files.write_text_durably(self._receipt_path(name), json.dumps(content))

    def _all_recorded(self) -> dict[str, dict[str, Any]]:
        receipts = {}
        for name in sorted({*_receipts_in(self._receipts), *self._added}):
            receipt = self.recorded(name)
            if receipt is None:
                raise DamagedArtifact(f"{self.partial / name} is damaged; run the same command again to make it anew")
            receipts[name] = receipt.as_json()
        return receipts

    def _receipt_path(self, name: str) -> Location:
        return self._receipts / f"{name}{_JSON}"


def receipts_in(partial: Location) -> dict[str, Receipt | None]:
    """Return the receipts that a writer left, by name of the file, None for a torn one."""
    folder = partial / RECEIPTS
    return {name: _receipt(folder / f"{name}{_JSON}") for name in _receipts_in(folder)} if folder.is_dir() else {}


def _receipts_in(folder: Location) -> list[str]:
    """Return the files that there are receipts of; what a killed writer left of a receipt is none."""
    return [path.name.removesuffix(_JSON) for path in inside(folder) if path.name.endswith(_JSON)]


def _receipt(path: Location) -> Receipt | None:
    """Return what a receipt says, or None if there is none or it does not hold its own digest."""
    try:
        content = json.loads(read(path))
        receipt = Receipt(**content[_RECEIPT])
        return receipt if content[_DIGEST] == _digest(receipt) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _digest(receipt: Receipt) -> str:
    return hashlib.sha256(canonical_json(receipt.as_json()).encode()).hexdigest()


def _digests(receipts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {name: receipt["sha256"] for name, receipt in receipts.items()}
