"""Whose purchases have changed between two snapshots, as one model sees them.

What a user's list is made of is his id and the sequence of his purchases that the model knows.
Catalogue indices of two snapshots mean different items, so both are compared as the model's. The
buckets of a snapshot are ranges of the user's hash, so the work goes bucket by bucket.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rum_core import schema
from rum_core.data.catalog import Catalog, tie_hash
from rum_core.data.grouping import bucket_of
from rum_core.data.histories import Histories, one_chunk
from rum_core.data.snapshots import Manifest, bucket_number
from rum_core.store.layout import Store


@dataclass(frozen=True)
class Side:
    """One of the two snapshots."""

    files: dict[int, str]  # parts of the histories by bucket
    buckets: int
    table: np.ndarray  # (I,) int32 the model's index of each of its items, -1 unknown

    @classmethod
    def of(cls, store: Store, manifest: Manifest, known: Catalog) -> "Side":
        """A snapshot as the model with the catalogue `known` sees it."""
        catalog = Catalog.from_table(store.read_table(manifest.catalog))
        files = {bucket_number(file): file for file in manifest.files}
        return cls(files, manifest.buckets, known.index_of(catalog.ids))


@dataclass(frozen=True)
class Changes:
    """What a bucket of the later snapshot holds."""

    active: int  # users who are new or whose sequence is another
    same: int
    stale: pa.Array  # ids of the earlier snapshot's users who are gone or whose sequence is another
    file: str | None  # the active users' rows of schema.histories


def find_changes(store: Store, before: Side, now: Side, bucket: int, target: str) -> Changes:
    """Compare a bucket of `now` with the users of `before` who fall into it, and write the rows of
    the active users into the folder `target`."""
    rows = store.read_table(now.files[bucket]) if bucket in now.files else None
    old = _earlier(store, before, now.buckets, bucket)
    if old is None:
        none = pa.array([], rows.field(schema.USER_ID).type if rows is not None else pa.null())
        return Changes(
            len(rows) if rows is not None else 0, 0, none, _write(store, rows, bucket, target)
        )
    if rows is None:
        return Changes(0, 0, one_chunk(old[schema.USER_ID]), None)
    same, place = same_sequences(_sequences(old, before), _sequences(rows, now))
    stale = np.ones(len(old), dtype=bool)
    stale[place[same]] = False
    ids = one_chunk(old[schema.USER_ID]).filter(pa.array(stale))
    active = rows.filter(pa.array(~same))
    return Changes(len(active), len(rows) - len(active), ids, _write(store, active, bucket, target))


def same_sequences(before: Histories, now: Histories) -> tuple[np.ndarray, np.ndarray]:
    """Which users of `now` have the same id and items in `before` (U,) bool, and their place there
    (U,) int64, -1 for a new one."""
    found = pc.index_in(now.user_ids, value_set=before.user_ids)
    place = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    same = place >= 0
    same[same] = before.lengths[place[same]] == now.lengths[same]
    alike = np.flatnonzero(same)
    left, right = before.take(place[alike]), now.take(alike)
    other = np.flatnonzero(left.items != right.items)
    same[alike[np.searchsorted(left.offsets, other, side="right") - 1]] = False
    return same, place


def found_again(store: Store, before: Side, now: Side, bucket: int) -> int:
    """How many purchases of the users of `before` who fall into a bucket of `now` it still holds.
    Both sides are seen by one catalogue that has every item of `now`."""
    old = _earlier(store, before, now.buckets, bucket)
    if old is None:
        return 0
    was, held = _histories(old, before), _histories(store.read_table(now.files[bucket]), now)
    same, place = same_sequences(was, held)
    other = np.flatnonzero(~same & (place >= 0))
    return int(held.lengths[same].sum()) + _in_both(was.take(place[other]), held.take(other))


def _in_both(left: Histories, right: Histories) -> int:
    """Purchases that both have of the same user (row) and item; -1 is no item."""
    wide = np.int64(max(left.items.max(initial=0), right.items.max(initial=0))) + 1
    counted = []
    for side in (left, right):
        owner = np.repeat(np.arange(len(side)), side.lengths)
        keys = (owner * wide + side.items)[side.items >= 0]
        counted.append(np.unique(keys, return_counts=True))
    (mine, n), (theirs, m) = counted
    _, i, j = np.intersect1d(mine, theirs, assume_unique=True, return_indices=True)
    return int(np.minimum(n[i], m[j]).sum())


def _earlier(store: Store, before: Side, buckets: int, bucket: int) -> pa.Table | None:
    """Rows (user_id, items) of the earlier snapshot whose users fall into one of `buckets`."""
    if before.buckets == buckets:
        numbers = [bucket]
    else:
        first = bucket * before.buckets // buckets
        last = -(-(bucket + 1) * before.buckets // buckets)
        numbers = list(range(first, last))
    tables = [
        store.read_table(before.files[number], [schema.USER_ID, schema.ITEMS])
        for number in numbers
        if number in before.files
    ]
    if not tables:
        return None
    rows = pa.concat_tables(tables).combine_chunks()
    if before.buckets != buckets:
        rows = rows.filter(pa.array(bucket_of(tie_hash(rows[schema.USER_ID]), buckets) == bucket))
    return rows if len(rows) else None


def _sequences(rows: pa.Table, side: Side) -> Histories:
    return _histories(rows, side).known()


def _histories(rows: pa.Table, side: Side) -> Histories:
    rows = rows.select([schema.USER_ID, schema.ITEMS])
    rows = rows.append_column(schema.TIMES, rows[schema.ITEMS])  # no matter here
    return Histories.from_table(rows).remap(side.table)


def _write(store: Store, rows: pa.Table | None, bucket: int, target: str) -> str | None:
    if rows is None or not len(rows):
        return None
    file = f"{target}/part-{bucket:05d}.parquet"
    store.write_table(file, rows)
    return file
