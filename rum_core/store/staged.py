"""Staged lists of a night, counted: what the record, the gate and the report say of them."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from rum_core import schema
from rum_core.data.snapshots import Snapshot
from rum_core.ranking.ranking import POPULAR
from rum_core.ranking.rules import HOLDOUT, Rules
from rum_core.store.layout import STAGING, Store
from rum_core.store.publish import database, parts_of


def count(store: Store, staged: str) -> dict[str, int]:
    """Rows, customers, and those of them whose lists are popular items alone."""
    rows = users = popular = 0
    for part in _parts(store, staged):
        table = store.read_table(part, [schema.RANK, schema.SOURCE])
        first = table[schema.SOURCE].filter(pc.equal(table[schema.RANK], 1))
        rows, users = rows + len(table), users + len(first)
        popular += pc.sum(pc.equal(first, POPULAR)).as_py() or 0
    return {"rows": rows, "users": users, "popular_users": popular}


def without_list(store: Store, staged: str, snapshot: Snapshot) -> pa.Table:
    """Rows of schema.histories of the customers who have no list."""
    files = [store.full(file) for file in snapshot.files]
    users = ds.dataset(files, format="parquet", filesystem=store.fs, partitioning=None)
    with database() as db:
        db.register("users", users)
        db.register("lists", parts_of(store, staged))
        return db.sql("select * from users anti join lists using (user_id)").to_arrow_table()


def ruled(store: Store, staged: str, rules: Rules, passed: dict[str, int]) -> dict[str, Any]:
    """What the rules in use did to the lists; `passed`: items that each of those for groups passed
    over, by its name."""
    found: dict[str, Any] = {}
    if rules.denied is not None:
        found["denied_items"] = int(rules.denied.sum())
    if rules.boost is not None:
        found["boosted_items"] = int((rules.boost != 0).sum())
    found |= {f"passed_{name}": passed.get(name, 0) for name in rules.grouped_by}
    with database() as db:
        db.register("lists", parts_of(store, staged))
        if rules.fills:
            filled = db.sql(
                "select count(*), coalesce(sum(places), 0) from (select "
                f"count(*) filter (source = '{POPULAR}') as places, count(*) as n from lists "
                "group by user_id) where 0 < places and places < n"
            ).fetchone()
            found |= dict(zip(("filled_users", "filled_rows"), map(int, filled or ()), strict=True))
        if rules.holdout:
            held_out = f"select count(*) from lists where rank = 1 and source = '{HOLDOUT}'"
            found["holdout_users"] = int((db.sql(held_out).fetchone() or (0,))[0])
        if rules.sizes is not None:
            lengths = db.sql(
                "select n, count(*) from (select count(*) as n from lists group by user_id) "
                "group by n order by n"
            ).fetchall()
            found["users_by_n"] = {str(n): users for n, users in lengths}
    return found


def is_whole(store: Store, record: dict[str, Any]) -> bool:
    """Whether all rows that a record tells of are still staged."""
    return bool(rows_in(store, record["staged"], {}) == record["rows"])


def settle(store: Store, staged: str) -> None:
    """Have staged lists on the disk before a record names them: Ray writes them past the store."""
    for path in (*store.files(staged), staged, STAGING):
        store.settle(path)


def rows_in(store: Store, staged: str, known: dict[str, int]) -> int:
    """Rows that are staged by now. `known` holds those of the parts that were looked at before."""
    for part in _parts(store, staged):
        if part not in known:
            with store.telling(part, "read"):
                metadata = pq.read_metadata(store.full(part), filesystem=store.fs)
            known[part] = int(metadata.num_rows)
    return sum(known.values())


def _parts(store: Store, staged: str) -> list[str]:
    return [file for file in store.files(staged) if file.endswith(".parquet")]
