"""Item vectors of any model, made anywhere: the history is scored by a pooled query."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ckd.stages.settings import Located
from ckd.stages.teachers.frozen import named_file
from ckd.stages.teachers.pooled import PooledSettings
from ckd.stages.vector_files import vector_files

if TYPE_CHECKING:
    from ckd.stages.teachers.contract import Opening
    from ckd.stages.teachers.pooled.teacher import PooledTeacher

VECTORS, ROWS = "vectors", "rows"


class Settings(PooledSettings):
    """A teacher of item vectors in a file."""

    kind: Literal["embeddings"] = "embeddings"
    vectors: Located = Field(
        description="file with the vector of every item: Parquet (item_id, vector), .npy or raw float32 .feat1CLS; "
        "`{domain}` in it stands for the domain's name"
    )

    def files(self, domain: str, where: str) -> Mapping[str, Path]:
        """Return the file of vectors, and the file that names its rows where there is one."""
        return dict(
            zip((VECTORS, ROWS), vector_files(named_file(self.vectors, domain, f"{where}.vectors")), strict=False)
        )


def open_teacher(opening: "Opening") -> "PooledTeacher":
    """Read the vectors of the domain's items, to compute in float64 (labels) or float32 (serving).

    Raises:
        UserError: the file cannot be read, lacks an item or holds what is no number.
    """
    from ckd.stages.teachers.pooled.teacher import PooledTeacher
    from ckd.stages.vectors import read_item_vectors

    path = opening.files[VECTORS]
    vectors = read_item_vectors(path, opening.corpus.items["item_id"])
    return PooledTeacher.of(opening, vectors, str(path))
