"""Lists against the domain that they are about: whose position each one is, which items it names."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ckd.stages.identifiers import same_type
from ckd.stages.teachers.scores.listing import Int64s, Listing
from ckd.storage.corpus import Corpus


def matched(listing: Listing, corpus: Corpus) -> tuple[Int64s, npt.NDArray[np.int32]]:
    """Return the place of each list among the corpus' positions [P] and the code of each listed item [M].

    Raises:
        UserError: a list is empty or repeated, or names something that the domain has not.
    """
    empty = np.flatnonzero(listing.length == 0)
    if len(empty):
        listing.refuse(empty[0], "its list is empty; give it an item, or leave the row out and set missing: skip")
    place = _places(listing, corpus)
    return place, _items(listing, corpus)


def _places(listing: Listing, corpus: Corpus) -> Int64s:
    user = _codes(listing.user, corpus.user_ids)
    unknown = np.flatnonzero(user < 0)
    if len(unknown):
        missing = listing.user[int(unknown[0])].as_py() is None
        problem = "the user is missing" if missing else "the domain has no such user"
        listing.refuse(unknown[0], f"{problem}; leave the row out, or keep the user in the domain")
    longest = corpus.lengths[user] - 1
    outside = np.flatnonzero((listing.position < 1) | (listing.position > longest))
    if len(outside):
        at = outside[0]
        listing.refuse(
            at, f"the positions of this user are 1 to {longest[at]}: the number of items in the history, oldest first"
        )
    place: Int64s = corpus.position_offsets[user] + listing.position - 1
    _refuse_repeated_lists(listing, place)
    return place


def _refuse_repeated_lists(listing: Listing, place: Int64s) -> None:
    order = np.argsort(place, kind="stable")
    again = order[1:][place[order[1:]] == place[order[:-1]]]
    if len(again):
        at = again.min()
        first = np.flatnonzero(place == place[at])[0]
        listing.refuse(at, f"row {listing.rows[first]} has a list of this user and position already; keep one of them")


def _items(listing: Listing, corpus: Corpus) -> npt.NDArray[np.int32]:
    items = _codes(listing.items, corpus.items["item_id"].combine_chunks())
    unknown = np.flatnonzero(items < 0)
    if len(unknown):
        name = listing.items[int(unknown[0])].as_py()
        problem = "an item is missing" if name is None else f"the domain has no item {name!r}"
        listing.refuse_entry(unknown[0], f"{problem}; leave it out of the list, or keep the item in the domain")
    owner = listing.owner
    order = np.lexsort((items, owner))
    again = (items[order][1:] == items[order][:-1]) & (owner[order][1:] == owner[order][:-1])
    if again.any():
        at = order[1:][again].min()
        listing.refuse_entry(at, f"item {listing.items[int(at)].as_py()!r} is listed twice; keep its best place")
    return items.astype(np.int32)


def _codes(ids: pa.Array, known: pa.Array) -> Int64s:
    """Return the index of each identifier among the known ones, -1 where it is null or unknown."""
    ids, known = same_type(ids, known)
    codes: Int64s = pc.index_in(ids, value_set=known, skip_nulls=True).fill_null(-1).to_numpy().astype(np.int64)
    return codes
