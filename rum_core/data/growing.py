"""Growing: the histories of the night before and the rows that are new become tonight's.

What comes out is what `grouping` makes of all rows, to the byte, without dealing and sorting them
again: new rows are dealt to the same buckets, and go into each history at their times. Where that
does not say where they belong (a new purchase at the very time of an old one, whose file and line
a history does not know), or the former part is damaged, all is grouped anew.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rum_core import schema
from rum_core.data.catalog import Catalog
from rum_core.data.grouping import (
    Grouped,
    Grouping,
    by_purchase,
    dealt_to,
    encoded,
    in_order,
    write_part,
)
from rum_core.data.histories import one_chunk
from rum_core.data.snapshots import Manifest, part_path
from rum_core.store.checksum import digest
from rum_core.store.layout import Store, StoreError


@dataclass(frozen=True)
class Growth:
    """A snapshot that grows out of a former one with the same number of buckets."""

    grouping: Grouping
    former: Manifest
    catalog: Catalog  # of the new snapshot
    table: np.ndarray  # (I,) int32 its index of each item of the former one


def intact(store: Store, former: Manifest, path: str) -> pa.Table | None:
    """A parquet file of a snapshot; None where it is not what the snapshot's manifest names."""
    try:
        content = store.read_bytes(path)
    except StoreError:
        return None
    if digest(content) != former.parts.get(path, {}).get("sha256"):
        return None
    return pq.read_table(pa.BufferReader(content))


def newcomers(grouping: Grouping, former: Manifest, bucket: int) -> int | None:
    """How many users of the rows dealt to a bucket the former snapshot does not know; None where
    its part is damaged."""
    users = pc.unique(dealt_to(grouping, bucket)[schema.USER_ID])
    path = part_path(former.id, bucket)
    if path not in former.files:
        return len(users)
    part = intact(grouping.store, former, path)
    if part is None:
        return None
    known = one_chunk(part[schema.USER_ID])
    return len(users) - int(pc.sum(pc.is_in(users, value_set=known)).as_py())


def grow(growth: Growth, bucket: int, first_user: int, *, dealt: bool) -> Grouped | None:
    """A bucket of the new snapshot; None where it has to be grouped anew. `dealt`: whether it has
    new rows; `first_user` is its first user_index."""
    former = _former(growth, bucket)
    if former is None:
        return None
    ids, offsets, item, time = former
    if dealt:
        grown = _with_rows(ids, offsets, item, time, dealt_to(growth.grouping, bucket), growth)
        if grown is None:
            return None
        ids, offsets, item, time = grown
    where = growth.grouping, growth.catalog, bucket, first_user
    return write_part(*where, ids, offsets.astype(np.int32), item, time)


Bucket = tuple[pa.Array, np.ndarray, np.ndarray, np.ndarray]  # ids, offsets, items, times


def _former(growth: Growth, bucket: int) -> Bucket | None:
    """A part of the former snapshot with items of the new catalogue; None where it is damaged."""
    store, path = growth.grouping.store, part_path(growth.former.id, bucket)
    if path not in growth.former.files:
        rows = dealt_to(growth.grouping, bucket)
        none = pa.array([], rows.schema.field(schema.USER_ID).type)
        return none, np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64)
    part = intact(store, growth.former, path)
    if part is None:
        return None
    items, times = one_chunk(part[schema.ITEMS]), one_chunk(part[schema.TIMES])
    bought = growth.table[items.flatten().to_numpy()]
    offsets = items.offsets.to_numpy().astype(np.int64)
    return one_chunk(part[schema.USER_ID]), offsets, bought, times.flatten().to_numpy()


def _with_rows(
    ids: pa.Array,
    offsets: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    rows: pa.Table,
    growth: Growth,
) -> Bucket | None:
    """The bucket with new rows in it; None where a row has the time of an old one of its user."""
    users, items = encoded(rows[schema.USER_ID]), encoded(rows[schema.ITEM_ID])
    known = pc.index_in(users.dictionary, value_set=ids)
    everyone = pa.concat_arrays([ids, users.dictionary.filter(pc.is_null(known))])
    place = np.arange(len(everyone))
    if len(everyone) > len(ids):
        order = in_order(everyone)
        place[order] = place.copy()
        everyone = everyone.take(pa.array(order))
    lengths = np.zeros(len(everyone), np.int64)
    lengths[place[: len(ids)]] = np.diff(offsets)
    starts = np.cumsum(lengths) - lengths  # among the old purchases, which keep their order

    user = pc.index_in(users.dictionary, value_set=everyone).to_numpy()[users.indices.to_numpy()]
    bought = growth.catalog.index_of(items.dictionary)[items.indices.to_numpy()]
    at = rows[schema.TIME].to_numpy()
    sorting = by_purchase(user, at, rows, bought)
    user, bought, at = user[sorting], bought[sorting], at[sorting]
    stops = starts[user] + lengths[user]
    goes = stops.copy()  # where each new purchase goes, before this old one
    held = lengths[user] > 0
    last = np.full(len(user), np.iinfo(np.int64).min)
    last[held] = time[stops[held] - 1]
    for row in np.flatnonzero(held & (at <= last)):
        mine = time[starts[user[row]] : stops[row]]
        before, after = (np.searchsorted(mine, at[row], side) for side in ("left", "right"))
        if before != after:
            return None
        goes[row] = starts[user[row]] + before
    lengths += np.bincount(user, minlength=len(lengths))
    grown = np.concatenate([[0], np.cumsum(lengths)])
    return everyone, grown, np.insert(item, goes, bought), np.insert(time, goes, at)
