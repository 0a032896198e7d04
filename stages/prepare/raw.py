"""The raw files of a domain, read and validated: what is unusable is out, what is rare is still in."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ckd.stages.identifiers import as_ids, plain, same_type
from ckd.stages.masks import Bools, as_bools
from ckd.stages.prepare.columns import INTERACTION_COLUMNS, as_text, check_mapping, find_column, need_column
from ckd.stages.prepare.files import INTERACTIONS, ITEMS, RawFile, RawFiles
from ckd.stages.prepare.readers import READERS, recformer, unisrec
from ckd.stages.prepare.rejects import Rejected, check_share, reject
from ckd.stages.prepare.settings import DomainSettings
from ckd.stages.prepare.tables import RawTables
from ckd.stages.times import Times, parse_times
from ckd.storage.corpus import TEXT_FIELDS
from ckd.storage.errors import UserError

Int64s = npt.NDArray[np.int64]

FOLDERS = {"unisrec": unisrec.read, "recformer": recformer.read}
"""What reads a whole folder, by its format."""


@dataclass(frozen=True)
class RawDomain:
    """The usable rows of a domain, in the order of its files.

    Attributes:
        items: item_id (string or int64, distinct), then the text fields, string, null where unknown.
        user_ids: distinct users, string or int64, in order of first appearance.
        user: int64 [N], row of ``user_ids`` per interaction.
        item: int64 [N], row of ``items`` per interaction.
        whole: int64 [N], time of the interaction as it is stored.
        fraction: float64 [N], what orders interactions of equal ``whole``.
        rejected: unusable rows by file and reason.
    """

    items: pa.Table
    user_ids: pa.Array
    user: Int64s
    item: Int64s
    whole: Int64s
    fraction: npt.NDArray[np.float64]
    rejected: Mapping[str, Mapping[str, int]]


def read_domain(files: RawFiles, settings: DomainSettings, where: str) -> RawDomain:
    """Read and validate all files.

    Args:
        files: the raw files.
        settings: column mapping and the share of rows that may be unusable.
        where: the domain's key in the configuration, for messages.

    Raises:
        UserError: a file can't be read, a column is missing or of a wrong type, too many rows are unusable.
    """
    raw = _tables(files)
    mapping = {str(ours): theirs for ours, theirs in settings.columns.items()}
    key = f"{where}.columns"
    check_mapping(mapping, raw.items.column_names, raw.interactions.column_names, key)
    columns = [need_column(raw.interactions, name, mapping, raw.interactions_path, key) for name in INTERACTION_COLUMNS]
    item_ids = as_ids(need_column(raw.items, "item_id", mapping, raw.items_path, key), raw.items_path, "item_id")
    wanted_ids = as_ids(columns[1], raw.interactions_path, "item_id")
    item_ids, wanted_ids = same_type(item_ids, wanted_ids)

    bad_items = _reject_items(item_ids)
    check_share(bad_items, settings.max_rejected, raw.items_path, where)
    usable = pa.array(bad_items.usable)
    texts = {name: _text(raw.items, name, mapping, raw.items_path).filter(usable) for name in TEXT_FIELDS}
    items = pa.table({"item_id": item_ids.filter(usable), **texts})

    user_ids = as_ids(columns[0], raw.interactions_path, "user_id")
    item = pc.index_in(wanted_ids, value_set=items["item_id"].combine_chunks(), skip_nulls=True)
    times = _times(columns[2], raw.interactions_path)
    bad = _reject_interactions(user_ids, wanted_ids, item, times, raw.unusable)
    check_share(bad, settings.max_rejected, raw.interactions_path, where, raw.call)
    users = user_ids.filter(pa.array(bad.usable)).dictionary_encode()
    return RawDomain(
        items=items,
        user_ids=users.dictionary,
        user=users.indices.to_numpy().astype(np.int64),
        item=item.fill_null(-1).to_numpy()[bad.usable].astype(np.int64),
        whole=times.whole[bad.usable],
        fraction=times.fraction[bad.usable],
        rejected={"items": bad_items.counts, "interactions": bad.counts},
    )


def _tables(files: RawFiles) -> RawTables:
    if files.format in FOLDERS:
        return FOLDERS[files.format]({role: file.path for role, file in files.by_role.items()})
    items, interactions = files.by_role[ITEMS], files.by_role[INTERACTIONS]
    return RawTables(_read(items), _read(interactions), items.path, interactions.path)


def _read(file: RawFile) -> pa.Table:
    table = READERS.load(file.format).read(file.path)
    if not isinstance(table, pa.Table):
        raise TypeError(f"the reader of {file.format} returned {type(table).__name__}, not a pyarrow Table")
    repeated = {name for name in table.column_names if table.column_names.count(name) > 1}
    if repeated:
        raise UserError(f"{file.path} names the column {min(repeated)!r} more than once; rename or remove one")
    return table


def _text(table: pa.Table, name: str, mapping: Mapping[str, str], path: Path) -> pa.Array:
    column = find_column(table, name, mapping)
    if column is None:
        return pa.nulls(table.num_rows, pa.large_string())
    return as_text(column, path, name)


def _times(column: pa.ChunkedArray, path: Path) -> Times:
    times = parse_times(plain(column))
    if times is None:
        raise UserError(
            f"{path}: column 'timestamp' has type {column.type}; it must hold numbers, dates or strings of ISO dates"
        )
    return times


def _reject_items(ids: pa.Array) -> Rejected:
    missing = as_bools(ids.is_null())
    codes = ids.dictionary_encode().indices.fill_null(-1).to_numpy()
    repeated = np.ones(len(codes), dtype=bool)
    repeated[np.unique(codes, return_index=True)[1]] = False
    return reject({"missing_item_id": missing, "duplicate_item_id": repeated}, len(ids))


def _reject_interactions(
    users: pa.Array, wanted: pa.Array, item: pa.Array, times: Times, others: Mapping[str, Bools]
) -> Rejected:
    reasons = {
        "missing_user_id": users.is_null(),
        "missing_item_id": wanted.is_null(),
        "unknown_item_id": item.is_null(),
    }
    masks = {name: as_bools(mask) for name, mask in reasons.items()}
    return reject({**masks, "unusable_timestamp": ~times.valid, **others}, len(users))
