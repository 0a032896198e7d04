"""The directory, or prefix of an object store, that holds corpora, text vectors, teachers, labels and runs."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ckd.storage import files
from ckd.storage.artifact import MAKERS, Artifact, described, load_artifact
from ckd.storage.draft import FORMER, RECEIPTS, Draft
from ckd.storage.errors import Busy
from ckd.storage.keys import SHORT, Address
from ckd.storage.location import Location, below, inside, location, matching, read
from ckd.storage.lock import discard, exclusive, held, living_holder
from ckd.storage.manifest import MANIFEST, SPARE, content_of, parsed, written

_LABELS = "labels"


class Store:
    """Finds committed artifacts and gives drafts to write new ones into.

    Args:
        root: a folder, or an fsspec URL such as ``s3://bucket/prefix``.

    Raises:
        UserError: no package that knows the URL's scheme is installed.
    """

    def __init__(self, root: Path | str) -> None:
        self.root: Location = location(root)

    def find(self, address: Address) -> Artifact | None:
        """Return the committed artifact of an address, or None.

        Raises:
            UserError: a newer version of ckd wrote it.
        """
        artifact = load_artifact(self.folder(address))
        return artifact if artifact is not None and artifact.key == address.key else None

    def with_key(self, kind: str, key: str) -> Artifact | None:
        """Return the committed artifact of a whole key, or None; not of labels, whose folders tell whose they are.

        Raises:
            UserError: a newer version of ckd wrote it.
        """
        artifact = load_artifact(self.root / kind / key[:SHORT])
        return artifact if artifact is not None and artifact.key == key else None

    def folder(self, address: Address) -> Location:
        """Return where the artifact of an address is, or would be."""
        return self.root / address.directory.as_posix()

    def folders(self, kind: str) -> list[Location]:
        """Return the directories of a kind, whether they are artifacts or once were, in order of path."""
        pattern = "*/*/key=*" if kind == _LABELS else "*"
        found = matching(self.root / kind, pattern)
        return [path for path in found if path.is_dir() and not path.name.startswith(".")]

    def all(self, kind: str) -> list[Artifact]:
        """Return every committed artifact of a kind, in order of path."""
        return self.found(kind)[0]

    def found(self, kind: str) -> tuple[list[Artifact], list[Location]]:
        """Return :meth:`all` and :meth:`damaged` of a kind; each manifest is read once."""
        return _told_apart(self.folders(kind))

    def labels_under(self, teacher: str, domain: str) -> tuple[list[Artifact], list[Location]]:
        """Return the labels under the names of a teacher (``*`` is any) and a domain, and what of them is damaged.

        Returns:
            Committed artifacts, and directories of such that once were, both in order of path.

        Raises:
            UserError: a newer version of ckd wrote some.
        """
        folders = matching(self.root / _LABELS, f"teacher={teacher}/domain={domain}/key=*")
        return _told_apart([folder for folder in folders if folder.is_dir()])

    def damaged(self, kind: str) -> list[Location]:
        """Return the directories of a kind that once were artifacts and are none now, in order of path."""
        return self.found(kind)[1]

    def partials(self) -> list[tuple[Location, str | None]]:
        """Return what writers left or are writing, in order of path, with the living writer in words."""
        patterns = [f"{kind}/{'*/*/' if kind == _LABELS else ''}.*.partial" for kind in MAKERS]
        found = [path for pattern in patterns for path in matching(self.root, pattern)]
        return [(path, held(self._lock_of(final_of(path)))) for path in found]

    def peek(self, address: Address) -> Draft | None:
        """Return what an interrupted writer left of an address, for reading only, or None."""
        partial = _partial(self.folder(address))
        return Draft(address, partial, self.folder(address)) if partial.is_dir() else None

    @contextmanager
    def draft(self, address: Address, resume: bool = False) -> Iterator[Draft]:
        """Lock an address and give the draft to write into.

        Unless ``resume``, whatever an interrupted writer left is removed first.

        Raises:
            Busy: another process is writing this artifact.
        """
        final = self.folder(address)
        partial = _partial(final)
        with self.locked(final) as still_mine:
            if not resume:
                files.remove_directory(partial)
            try:
                files.make_folder(partial / RECEIPTS)
                yield Draft(address, partial, final, still_mine)
            finally:
                if _holds(still_mine) and not (resume and _holds_files(partial)):
                    files.remove_directory(partial)

    @contextmanager
    def locked(self, folder: Location) -> Iterator[Callable[[], None]]:
        """Keep every other writer from an artifact's folder while the body runs, as :func:`exclusive` does.

        Raises:
            Busy: another process is writing it.
        """
        kind = below(folder, self.root)[0]
        with exclusive(self._lock_of(folder), f"{kind} artifact {folder.name.removeprefix('key=')}") as still_mine:
            yield still_mine

    def writer(self, address: Address) -> str | None:
        """Return the living process that writes an address, in words, or None."""
        final = self.folder(address)
        return living_holder(self._lock_of(final)) if _partial(final).is_dir() else None

    def reopen(self, artifact: Artifact, damaged: Collection[str]) -> None:
        """Make of a committed artifact the draft of an interrupted writer, which lacks the damaged files.

        The command that made it then makes just those again. Until it has, the artifact does not exist for a reader.
        Killed at any point, a second call goes on.

        Raises:
            Busy: another process is writing it.
        """
        with self.locked(artifact.path):
            partial = _partial(artifact.path)
            draft = Draft(address_of(artifact), partial, artifact.path)
            if draft.former() is None:
                files.remove_directory(partial)
                files.make_folder(partial / RECEIPTS)
                for name in artifact.files:
                    if name not in damaged:
                        draft.adopt(artifact, name)
                files.settle(partial)
                # Last, for where it is, all is adopted.
                files.write_text_durably(partial / FORMER, written(content_of(artifact.manifest)))
            files.remove_directory(artifact.path, MANIFEST)

    def reopened(self) -> list[Artifact]:
        """Return what was reopened and is not made again yet, as it was, in order of path."""
        found = [described(path, FORMER) for path, _ in self.partials()]
        return [Artifact(final_of(artifact.path), artifact.manifest) for artifact in found if artifact is not None]

    def withdraw(self, artifact: Artifact) -> None:
        """Take an artifact from its readers, so that it can be made anew; all its files stay until it is.

        Raises:
            Busy: another process is writing it.
        """
        with self.locked(artifact.path):
            files.write_text_durably(artifact.path / SPARE, written(content_of(artifact.manifest)))
            files.remove_file(artifact.path / MANIFEST)

    def restore(self, folder: Location) -> Artifact | None:
        """Put the spare copy of a manifest in the place of the damaged one; return the artifact, if it then is one.

        Raises:
            UserError: a newer version of ckd wrote it, or another process is writing it.
        """
        with self.locked(folder):
            try:
                text = read(folder / SPARE).decode()
            except (OSError, ValueError):
                return None
            if load_artifact(folder) is None and parsed(text, folder / SPARE) is not None:
                files.write_text_durably(folder / MANIFEST, text)
            return load_artifact(folder)

    def copy_manifest(self, folder: Location) -> None:
        """Write the spare copy of a manifest anew, if the manifest is whole.

        Raises:
            UserError: a newer version of ckd wrote it, or another process is writing it.
        """
        with self.locked(folder):
            if described(folder) is not None:
                text = (folder / MANIFEST).read_bytes().decode()
                files.write_text_durably(folder / SPARE, text)

    def remove(self, folder: Location) -> None:
        """Remove an artifact, or what a writer left of one.

        Raises:
            Busy: another process is writing it.
        """
        final = final_of(folder)
        with self.locked(final):
            if isinstance(folder, Path) and folder == final and folder.is_dir():
                # Killed from here on, what is left is no part of an artifact but of a draft.
                folder = _partial(final)
                files.remove_directory(folder)
                files.move_directory(final, folder, MANIFEST)
            files.remove_directory(folder, MANIFEST)

    def writing(self) -> str | None:
        """Return a living process that writes anything here, in words, or None."""
        return next((holder for path in self._locks() if (holder := held(path)) is not None), None)

    def idle_locks(self) -> list[Location]:
        """Return the files of locks that nobody holds and under which nothing is, in order of path."""
        folders = [folder for kind in MAKERS for folder in self.folders(kind)]
        of_something = {
            self._lock_of(folder) for folder in [*folders, *(final_of(path) for path, _ in self.partials())]
        }
        return [path for path in self._locks() if path not in of_something and held(path) is None]

    def discard_lock(self, path: Location) -> None:
        """Remove the file of a lock, unless somebody holds it."""
        discard(path)

    def _locks(self) -> list[Location]:
        return matching(self.root / "locks", "*.lock")

    def _lock_of(self, final: Location) -> Location:
        return self.root / "locks" / f"{'-'.join(below(final, self.root))}.lock"


def address_of(artifact: Artifact) -> Address:
    """Return the address of a committed artifact."""
    domain = artifact.path.parent
    folders = [domain.parent.name, domain.name] if artifact.kind == _LABELS else []
    partitions = tuple((name, value) for name, _, value in (folder.partition("=") for folder in folders))
    return Address(artifact.kind, artifact.inputs, partitions)


def _told_apart(folders: Sequence[Location]) -> tuple[list[Artifact], list[Location]]:
    found = {folder: load_artifact(folder) for folder in folders}
    there = [artifact for artifact in found.values() if artifact is not None]
    return there, [folder for folder, artifact in found.items() if artifact is None]


def _partial(final: Location) -> Location:
    return final.with_name(f".{final.name}.partial")


def final_of(folder: Location) -> Location:
    """Return the folder of the artifact that ``folder`` is, or of which it is what a writer left."""
    return folder.with_name(folder.name.removeprefix(".").removesuffix(".partial"))


def _holds(still_mine: Callable[[], None]) -> bool:
    try:
        still_mine()
    except Busy:
        return False
    return True


def _holds_files(partial: Location) -> bool:
    receipts = partial / RECEIPTS
    return receipts.is_dir() and bool(inside(receipts))
