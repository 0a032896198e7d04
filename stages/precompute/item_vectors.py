"""A teacher's item vectors, encoded once per catalogue and kept apart from any labels."""

from ckd.stages.teachers.contract import Teacher
from ckd.storage.artifact import Artifact
from ckd.storage.keys import Address
from ckd.storage.store import Store
from ckd.storage.vectors import write_vectors


def keep_item_vectors(store: Store, address: Address, teacher: Teacher) -> Artifact:
    """Return the artifact of a teacher's item vectors: from the store, or encoded now."""
    with store.draft(address) as draft:
        if (present := store.find(address)) is not None:
            return present
        vectors = teacher.item_vectors().cpu().numpy().astype("float32")
        write_vectors(draft, vectors)
        return draft.commit({"items": len(vectors), "dimensions": vectors.shape[1]})
