"""Grouping: interactions become one ordered row a user. The one shuffle of the system.

Users fall into buckets by the hash of their id, so the order of users is that of (hash, id)
whatever the number of buckets or workers. Stage one reads every part of the interactions and deals
its rows to the buckets; stage two sorts a bucket and writes it as one part of the histories.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rum_core import schema
from rum_core.data.catalog import Catalog, tie_hash
from rum_core.data.histories import one_chunk
from rum_core.data.snapshots import part_path
from rum_core.store.layout import Store

BUCKET_ROWS = 1_500_000
READ_ROWS = 1_000_000  # of a part, at a time
COLUMNS = [
    schema.USER_ID,
    schema.ITEM_ID,
    schema.TIME,
    schema.INVOICE,
    schema.FILE,
    schema.LINE,
]


@dataclass(frozen=True)
class Grouping:
    """How the live rows of the interactions become a snapshot's histories."""

    store: Store
    staged: str
    snapshot: str
    buckets: int
    not_after: int | None  # time of the last purchase that counts; None: all count
    repeats: str  # keep, or merge


@dataclass(frozen=True)
class Dealt:
    """What stage one found in a part."""

    items: pa.Array  # distinct ids
    users: np.ndarray  # (n,) uint64 hashes of the distinct users
    rows: int  # live rows
    later: int  # of them after the night


def deal(grouping: Grouping, part: str, files: list[str], number: int) -> Dealt:
    """Stage one: the rows of the live `files` in a part, dealt to the buckets."""
    store = grouping.store
    with store.telling(part, "read"), store.fs.open_input_file(store.full(part)) as file:
        parquet = pq.ParquetFile(file)
        dealt = [
            _deal(grouping, _live(pa.Table.from_batches([rows]), files), f"{number:05d}-{piece}")
            for piece, rows in enumerate(parquet.iter_batches(READ_ROWS, columns=COLUMNS))
        ]
        items = parquet.schema_arrow.field(schema.ITEM_ID).type
    return Dealt(
        pc.unique(pa.chunked_array([d.items for d in dealt], items)),
        np.unique(np.concatenate([np.zeros(0, np.uint64), *(d.users for d in dealt)])),
        sum(d.rows for d in dealt),
        sum(d.later for d in dealt),
    )


def _deal(grouping: Grouping, rows: pa.Table, name: str) -> Dealt:
    total = len(rows)
    if grouping.not_after is not None:
        rows = rows.filter(pc.less_equal(rows[schema.TIME], grouping.not_after))
    users = encoded(rows[schema.USER_ID])
    hashes = tie_hash(users.dictionary)
    bucket = bucket_of(hashes, grouping.buckets)[users.indices.to_numpy()]
    for b in np.unique(bucket):
        piece = rows.filter(pa.array(bucket == b)) if grouping.buckets > 1 else rows
        path = f"{_bucket(grouping, int(b))}/part-{name}.parquet"
        grouping.store.make_parent(path)
        with grouping.store.telling(path, "write"):
            pq.write_table(
                piece,
                grouping.store.full(path),
                filesystem=grouping.store.fs,
                compression="lz4",
                use_dictionary=[schema.FILE, schema.INVOICE, schema.ITEM_ID, schema.USER_ID],
            )
    return Dealt(pc.unique(rows[schema.ITEM_ID]), hashes, total, total - len(rows))


def bucket_of(hashes: np.ndarray, buckets: int) -> np.ndarray:
    """Bucket of each hash (N,) int64: ranges of the hash, so buckets keep its order."""
    return ((hashes >> np.uint64(32)) * np.uint64(buckets) >> np.uint64(32)).astype(np.int64)


def dealt_to(grouping: Grouping, bucket: int) -> pa.Table:
    """All rows that were dealt to a bucket, one at least."""
    pieces = grouping.store.files(_bucket(grouping, bucket))
    return pa.concat_tables([grouping.store.read_table(piece) for piece in pieces])


def in_order(ids: pa.Array) -> np.ndarray:
    """The order of users (U,): by hash, and then by id."""
    by_hash = pa.table({"hash": tie_hash(ids), "id": ids})
    keys = [("hash", "ascending"), ("id", "ascending")]
    return np.asarray(pc.sort_indices(by_hash, keys).to_numpy())


@dataclass(frozen=True)
class Grouped:
    """What stage two made of a bucket."""

    file: str
    users: int
    purchases: np.ndarray  # (I,) of each item
    merged: int
    sha256: str

    def said(self) -> dict[str, Any]:
        """What the snapshot's manifest says of the part."""
        purchases = int(self.purchases.sum())
        return {"sha256": self.sha256, "users": self.users, "purchases": purchases}


def group(grouping: Grouping, catalog: Catalog, bucket: int, first_user: int) -> Grouped:
    """Stage two: a bucket as rows of schema.histories; `first_user` is its first user_index."""
    rows = dealt_to(grouping, bucket)
    users = encoded(rows[schema.USER_ID])
    order = in_order(users.dictionary)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    user = place[users.indices.to_numpy()]  # (N,)
    items = encoded(rows[schema.ITEM_ID])
    item = catalog.index_of(items.dictionary)[items.indices.to_numpy()]
    time = rows[schema.TIME].to_numpy()
    sorting = by_purchase(user, time, rows, item)
    user, item, time = user[sorting], item[sorting], time[sorting]
    keep = _first(grouping, rows[schema.INVOICE], sorting, user, item)
    user, item, time = user[keep], item[keep], time[keep]
    offsets = np.zeros(len(order) + 1, dtype=np.int32)
    np.cumsum(np.bincount(user, minlength=len(order)), out=offsets[1:])
    merged = len(rows) - len(item)
    ids = users.dictionary.take(pa.array(order))
    return write_part(grouping, catalog, bucket, first_user, ids, offsets, item, time, merged)


def write_part(
    grouping: Grouping,
    catalog: Catalog,
    bucket: int,
    first_user: int,
    ids: pa.Array,
    offsets: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    merged: int = 0,
) -> Grouped:
    """A bucket's users (U,), in order, as a part of the histories: purchases offsets[u] to
    offsets[u + 1] of item and time, int32 offsets."""
    table = pa.table(
        [
            ids,
            pa.array(first_user + np.arange(len(ids))),
            pa.ListArray.from_arrays(pa.array(offsets), pa.array(item)),
            pa.ListArray.from_arrays(pa.array(offsets), pa.array(time)),
        ],
        schema=schema.histories(ids.type),
    )
    file = part_path(grouping.snapshot, bucket)
    sha256 = grouping.store.write_table(file, table)
    purchases = np.bincount(item, minlength=len(catalog))
    return Grouped(file, len(ids), purchases, merged, sha256)


def first_users(hashes: np.ndarray, buckets: int) -> np.ndarray:
    """The user_index of each bucket's first user (buckets,), from all users' distinct hashes."""
    counts = np.bincount(bucket_of(hashes, buckets), minlength=buckets)
    return np.concatenate([[0], np.cumsum(counts)[:-1]])


def _bucket(grouping: Grouping, bucket: int) -> str:
    return f"{grouping.staged}/bucket={bucket:05d}"


def _live(rows: pa.Table, files: list[str]) -> pa.Table:
    names = pc.unique(rows[schema.FILE])
    if set(names.to_pylist()) <= set(files):
        return rows
    return rows.filter(pc.is_in(rows[schema.FILE], value_set=pa.array(files, pa.string())))


def encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """A column as distinct values and an index into them each row."""
    return one_chunk(column.dictionary_encode())


def by_purchase(user: np.ndarray, time: np.ndarray, rows: pa.Table, item: np.ndarray) -> np.ndarray:
    """Rows (N,) by user, time, file, line, and then the item, whose index follows its hash."""
    names = encoded(rows[schema.FILE])
    rank = np.argsort(np.argsort(names.dictionary.to_numpy(zero_copy_only=False)))
    file = rank[names.indices.to_numpy()]
    return np.lexsort((item, rows[schema.LINE].to_numpy(), file, time, user))


def _first(
    grouping: Grouping,
    invoices: pa.ChunkedArray,
    sorting: np.ndarray,
    user: np.ndarray,
    item: np.ndarray,
) -> np.ndarray:
    """Which sorted rows stay (N,) bool: the first of an item on an invoice, or of a customer."""
    if grouping.repeats == "merge":
        return np.asarray(~pd.DataFrame({"user": user, "item": item}).duplicated().to_numpy())
    if invoices.null_count == len(invoices):
        return np.ones(len(user), dtype=bool)
    codes = pc.fill_null(encoded(invoices).indices, -1).to_numpy(zero_copy_only=False)[sorting]
    lines = pd.DataFrame({"user": user, "item": item, "invoice": codes})
    return np.asarray((codes < 0) | ~lines.duplicated().to_numpy())
