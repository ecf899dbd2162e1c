"""Histories from dealt and grouped parts, against sorting everything in Python."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rum_core import schema
from rum_core.data import grouping
from rum_core.data.catalog import Catalog, tie_hash
from rum_core.data.grouping import Grouping, bucket_of, deal, first_users, group
from rum_core.data.histories import Histories
from rum_core.store.layout import Store

ROW = st.tuples(
    st.integers(0, 5),  # user
    st.integers(0, 6),  # item
    st.integers(0, 4),  # time
    st.sampled_from([None, "A", "B"]),  # invoice
    st.sampled_from(["f1", "f10", "f2"]),  # file
)
NAMES = ["user_id", "item_id", "time", "invoice", "file"]


def written(store, rows, parts, ids):
    """Rows with the line of each, shuffled over parts."""
    rows = [(*row, line) for line, row in enumerate(rows)]
    for part in range(parts):
        columns = list(zip(*rows[part::parts][::-1], strict=True)) or [()] * 6
        table = pa.table(dict(zip([*NAMES, "line"], map(list, columns), strict=True)))
        table = table.set_column(0, "user_id", table["user_id"].cast(pa.int64()).cast(ids))
        store.write_table(f"part-{part}", table.cast(schema.interactions(ids, pa.int64())))
    return rows


def expected(rows, files, not_after, repeats, ids, rank):
    """Purchases of each user as (item, time), merged as the settings say."""
    live = [row for row in rows if row[4] in files and row[2] <= not_after]
    found, seen = {}, set()
    for user, item, time, invoice, _, _ in sorted(
        live, key=lambda r: (r[2], r[4], r[5], rank.get(r[1], 0))
    ):
        key = (user, item) if repeats == "merge" else (user, item, invoice)
        if key in seen and (repeats == "merge" or invoice is not None):
            continue
        seen.add(key)
        found.setdefault(str(user) if ids == pa.string() else user, []).append((item, time))
    return found


@given(
    rows=st.lists(ROW, min_size=1, max_size=40),
    parts=st.integers(1, 4),
    buckets=st.integers(1, 7),
    read_rows=st.integers(1, 9),
    files=st.sets(st.sampled_from(["f1", "f10", "f2"]), min_size=1),
    not_after=st.integers(0, 4),
    repeats=st.sampled_from(["keep", "merge"]),
    ids=st.sampled_from([pa.string(), pa.int64()]),
)
@settings(max_examples=60, deadline=None)
def test_histories_are_those_of_sorting_everything(
    tmp_path_factory, rows, parts, buckets, read_rows, files, not_after, repeats, ids
):
    store = Store.open(str(tmp_path_factory.mktemp("store")))
    rows = written(store, rows, parts, ids)
    how = Grouping(store, "staged", "s", buckets, not_after, repeats)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "READ_ROWS", read_rows)
        dealt = [deal(how, f"part-{part}", sorted(files), part) for part in range(parts)]
    assert sum(d.rows for d in dealt) == sum(row[4] in files for row in rows)
    assert sum(d.later for d in dealt) == sum(
        row[4] in files and row[2] > not_after for row in rows
    )
    hashes = np.unique(np.concatenate([d.users for d in dealt]))
    items = pc.unique(pa.chunked_array([d.items for d in dealt], pa.int64()))
    catalog = Catalog.from_ids(items, np.zeros(len(items), np.int64))
    first = first_users(hashes, buckets)
    full = np.unique(bucket_of(hashes, buckets))
    done = [group(how, catalog, int(bucket), int(first[bucket])) for bucket in full]
    wanted = expected(
        rows,
        files,
        not_after,
        repeats,
        ids,
        dict(zip(catalog.ids.to_pylist(), range(99))),  # noqa: B905
    )
    if not done:
        assert wanted == {}
        return
    table = pa.concat_tables([store.read_table(d.file) for d in done])
    found = Histories.from_table(table)
    names = found.user_ids.to_pylist()
    order = tie_hash(found.user_ids)
    assert order.tolist() == sorted(order)
    assert table["user_index"].to_pylist() == list(range(len(table)))
    catalog_ids = catalog.ids.to_pylist()
    pairs = [(catalog_ids[i], t) for i, t in zip(found.items, found.times.tolist(), strict=True)]
    assert {
        user: pairs[found.offsets[n] : found.offsets[n + 1]] for n, user in enumerate(names)
    } == wanted
    bought = np.sum([d.purchases for d in done], axis=0)
    assert dict(zip(catalog_ids, bought.tolist(), strict=True)) == {
        item: sum(i == item for h in wanted.values() for i, _ in h) for item in catalog_ids
    }
    assert sum(d.merged for d in done) == sum(
        row[4] in files and row[2] <= not_after for row in rows
    ) - len(pairs)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.integers(1, 5000))
def test_buckets_are_ranges_of_the_hash(hashes, buckets):
    ordered = np.array(sorted(set(hashes)), dtype=np.uint64)
    bucket = bucket_of(ordered, buckets)
    assert (np.diff(bucket) >= 0).all()
    assert bucket.min() >= 0
    assert bucket.max() < buckets
    first = first_users(ordered, buckets)
    for place, b in enumerate(bucket):
        assert place - first[b] == np.sum(bucket[:place] == b)
