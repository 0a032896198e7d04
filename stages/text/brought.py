"""Item text vectors that a user made elsewhere, brought into the store in the order of a corpus."""

from pathlib import Path

from ckd.stages.text.address import brought_address
from ckd.stages.vectors import read_item_vectors
from ckd.storage.artifact import Artifact
from ckd.storage.corpus import Corpus
from ckd.storage.errors import UserError
from ckd.storage.store import Store
from ckd.storage.vectors import write_vectors


def bring_vectors(store: Store, corpus: Corpus, path: Path) -> Artifact:
    """Return the text vectors of a corpus from a file, kept in the store.

    Raises:
        UserError: the file does not fit the corpus, or changed while it was read.
    """
    address = brought_address(corpus.key, path)
    vectors = read_item_vectors(path, corpus.items["item_id"])
    if brought_address(corpus.key, path) != address:
        raise UserError(f"{path} changed while it was read; run the same command again")
    with store.draft(address) as draft:
        if (present := store.find(address)) is not None:
            return present
        write_vectors(draft, vectors)
        return draft.commit({"items": len(vectors), "empty": 0, "dimensions": vectors.shape[1]})
