"""Agreement of two teachers, kept: what the view ``agreement`` would compute from two lists per row at every question.

The rows are the view's own, so that a question gives the same numbers with what is kept and without it.
"""

import pyarrow as pa

from ckd.storage.artifact import Artifact
from ckd.storage.keys import Address
from ckd.storage.parquet import write_table
from ckd.storage.sql.answer import ask
from ckd.storage.sql.connection import open_views
from ckd.storage.sql.contents import Contents, LabelSource
from ckd.storage.sql.views import AGREEMENT, KEPT
from ckd.storage.store import Store

_ROW_GROUP = 32_768


def write_agreement(store: Store, address: Address, one: Artifact, other: Artifact) -> Artifact:
    """Compute and store how far two teachers agree at every position that both label.

    Args:
        store: where to write.
        address: from :func:`ckd.stages.precompute.address.agreement_address`.
        one: labels of the teacher that is the first by name.
        other: labels of the other, for the same corpus.

    Raises:
        Busy: another process is writing it.
        DamagedArtifact: the labels are not those that were written.
    """
    pair = Contents(labels=[LabelSource("1", "domain", one), LabelSource("2", "domain", other)])
    query = f"select {', '.join(KEPT)} from agreement order by user_id, position"
    with store.draft(address) as draft:
        if (present := store.find(address)) is not None:
            return present
        with open_views(pair) as connection, ask(connection, query) as answer:
            table = pa.Table.from_batches(answer.batches(), answer.schema)
        draft.add(AGREEMENT, lambda path: write_table(table, path, _ROW_GROUP), rows=table.num_rows)
        return draft.commit()
