"""Audit: what must hold for the staged lists of a night, as a whole, before they are published.

Every rule of the table's contract is one query; the first that finds a row stops the night.
"""

from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from rum_core import schema
from rum_core.data.candidates import read_candidates
from rum_core.data.catalog import Catalog
from rum_core.data.snapshots import load_snapshot
from rum_core.ranking.ranking import POPULAR
from rum_core.ranking.rules import HOLDOUT, Rules, read_rules
from rum_core.settings import Settings
from rum_core.store.audit_rules import rule_checks, sizes
from rum_core.store.checkpoint import model_dir
from rum_core.store.layout import Store, StoreError
from rum_core.store.publish import database, parts_of


class AuditError(StoreError):
    """The staged lists break the table's contract; nothing was published."""


@dataclass(frozen=True)
class Expectation:
    """What the lists of a night must look like."""

    top_n: int
    model_id: str
    histories: pa.Table | ds.Dataset  # user_id, items: every customer, and what he has bought
    catalog: pa.Table  # item_id, item_index of the histories
    item_ids: pa.Array  # every item that may stand in a list
    without_list: int  # customers for whom fewer than top_n items are left
    exclude_seen: bool
    source: str = "rum"  # the model's name
    rules: Rules | None = None  # of the items `known_ids`
    known_ids: pa.Array | None = None


def expectation(store: Store, settings: Settings, made: dict[str, Any]) -> Expectation:
    """What the lists that the record `made` of the recommend job tells of must look like."""
    snapshot = load_snapshot(store, made["snapshot"])
    folder = model_dir(made["model_id"])
    known = Catalog.from_table(store.read_table(f"{folder}/catalog.parquet"))
    files = [store.full(f) for f in snapshot.files]
    histories = ds.dataset(files, format="parquet", filesystem=store.fs, partitioning=None)
    rules = read_rules(settings, known, histories.schema.field(schema.USER_ID).type)
    chosen = settings.recommend.candidates
    able = rules.allow(read_candidates(chosen, known) if chosen else None)
    return Expectation(
        top_n=settings.recommend.top_n,
        model_id=made["model_id"],
        histories=histories,
        catalog=snapshot.catalog.to_table(),
        item_ids=known.ids.filter(pa.array(able)),
        without_list=made["users_without_list"],
        exclude_seen=settings.recommend.exclude_seen,
        source=str(store.read_json(f"{folder}/config.json")["model"]),
        rules=rules,
        known_ids=known.ids,
    )


def audit(store: Store, staged: str, expected: Expectation) -> dict[str, int]:
    """Check staged parts as a whole; returns counts of rows and users.

    Raises AuditError that names the first rule broken and how many rows break it.
    """
    parts = parts_of(store, staged)
    user_type = expected.histories.schema.field(schema.USER_ID).type
    wanted = schema.recommendations(user_type, expected.item_ids.type)
    if not parts.schema.equals(wanted):
        raise AuditError(f"staged lists have other columns than the contract: {parts.schema}")
    with database() as db:
        db.register("parts", parts)
        db.register("users", expected.histories)
        db.register("bought", expected.catalog)
        db.register("items", pa.table({schema.ITEM_ID: expected.item_ids}))
        rules = expected.rules or Rules.none(0)
        db.register("sizes", sizes(rules, expected.histories))
        columns = "user_id, rank, item_id, score, source, model_id"
        db.execute(f"create table lists as select {columns} from parts")
        checks = {
            "rows hold a null": "select count(*) from lists where user_id is null or rank is null "
            "or item_id is null or score is null or source is null or model_id is null",
            "rows have a score that is not finite": "select count(*) from lists "
            "where not isfinite(score)",
            f"customers have other ranks than 1 to {expected.top_n}, or to their own N": "select "
            "count(*) from (select user_id, count(*) as n, count(distinct rank) as places, "
            "min(rank) as first, max(rank) as last from lists group by user_id) left join sizes "
            "using (user_id) where n != coalesce(wanted, $n) or n != places or first != 1 "
            "or n != last",
            "customers have an item twice": "select count(*) from (select user_id from lists "
            "group by user_id having count(distinct item_id) != count(*))",
            "rows are out of order of score": "select count(*) from (select score > lag(score) "
            "over (partition by user_id, source order by rank) as up from lists) where up",
            "rows name an unknown customer": "select count(*) from lists anti join users "
            "using (user_id)",
            "rows name an item that may not be recommended": "select count(*) from lists "
            "anti join items using (item_id)",
            f"customers more or less than {expected.without_list} have no list": "select "
            "abs($without - count(*)) from users anti join lists using (user_id)",
            "rows name another model": "select count(*) from lists where model_id != $model",
            "rows have an unknown source": "select count(*) from lists "
            f"where source not in ($source, '{POPULAR}', '{HOLDOUT}')",
        }
        checks |= rule_checks(db, rules, expected.known_ids, expected.histories)
        if expected.exclude_seen:
            checks["rows name an item the customer has bought"] = (
                "select count(*) from lists join bought using (item_id) join users using (user_id) "
                "where list_contains(users.items, bought.item_index)"
            )
        for rule, query in checks.items():
            given = {"n": expected.top_n, "model": expected.model_id}
            given |= {"without": expected.without_list, "source": expected.source}
            broken = _one(db, query, {k: v for k, v in given.items() if f"${k}" in query})
            if broken:
                raise AuditError(f"audit failed: {broken} {rule}; the lists stay in {staged}")
        rows = _one(db, "select count(*) from lists", {})
        users = _one(db, "select count(*) from lists where rank = 1", {})
    return {"rows": rows, "users": users}


def _one(db: duckdb.DuckDBPyConnection, query: str, parameters: dict[str, Any]) -> int:
    row = db.execute(query, parameters).fetchone()
    return int(row[0]) if row else 0
