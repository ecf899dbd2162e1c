"""What the shop's own rules say of the lists of a night, each as one query that finds no row."""

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from rum_core import schema
from rum_core.ranking.ranking import POPULAR
from rum_core.ranking.rules import HOLDOUT, Rules


def rule_checks(
    db: duckdb.DuckDBPyConnection, rules: Rules, items: pa.Array, users: pa.Table | ds.Dataset
) -> dict[str, str]:
    """Queries over the table `lists`, by what is wrong where one counts any; $source is the model's
    name. `items`: ids of the items that the rules are of; `users`: everyone, by `user_id`."""
    checks = {}
    for name, groups, most in zip(rules.grouped_by, rules.groups, rules.most, strict=True):
        table = f"{name}_of_item"
        of_item = pa.table({schema.ITEM_ID: items, "which": groups})
        db.register(table, of_item.filter(pa.array(groups >= 0)))
        checks[f"customers have more than {most} items of a {name}"] = (
            f"select count(distinct user_id) from (select user_id from lists join {table} using "
            f"(item_id) group by user_id, which having count(*) > {int(most)})"
        )
    if rules.fills:
        checks["rows of the model have a score below rules.min_score"] = (
            f"select count(*) from lists where source = $source and source != '{POPULAR}' "
            f"and score < {rules.min_score!r}::double"
        )
        checks["rows of the model stand below popular items"] = (
            "select count(*) from (select source, lag(source) over (partition by user_id order by "
            f"rank) as before from lists) where before = '{POPULAR}' and source != before"
        )
    else:
        checks["customers have rows of several sources"] = (
            "select count(*) from (select user_id from lists group by user_id "
            "having min(source) != max(source))"
        )
    db.register("held_out", held_out(rules, users))
    checks["rows are of the holdout where their customer is not, or the other way round"] = (
        "select count(*) from lists left join held_out using (user_id) "
        f"where (source = '{HOLDOUT}') != (held_out.user_id is not null)"
    )
    return checks


def held_out(rules: Rules, users: pa.Table | ds.Dataset) -> pa.Table:
    """`user_id` of the customers who are held out."""
    kind = users.schema.field(schema.USER_ID).type
    ids = [pa.array([], kind)]
    if rules.holdout:
        table = users if isinstance(users, pa.Table) else users.to_table([schema.USER_ID])
        every = table[schema.USER_ID].combine_chunks()
        ids = [every.filter(pa.array(rules.held_out(every)))]
    return pa.table({schema.USER_ID: ids[0]})


def sizes(rules: Rules, users: pa.Table | ds.Dataset) -> pa.Table:
    """`user_id` and `wanted` of the customers whose lists have another number of items."""
    if rules.sizes is not None:
        return rules.sizes.to_table()
    kind = users.schema.field(schema.USER_ID).type
    return pa.table({schema.USER_ID: pa.array([], kind), "wanted": pa.array([], pa.int32())})
