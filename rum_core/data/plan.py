"""How the files of a store are read: places of columns, units, the shop's own rules, types of ids.

Made from the settings and the first file, before the long work starts.
"""

from dataclasses import dataclass
from functools import cache

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rum_core.data.blocks import Block, columns_of, mentioned, position
from rum_core.data.columns import as_mask, as_text, plain
from rum_core.data.sources import IngestError, SourceFile
from rum_core.errors import one_line
from rum_core.settings import Source


@dataclass(frozen=True)
class Plan:
    """How the rows of every file of a store are read: places of columns, units, rules, id types."""

    names: tuple[str, ...]
    user: int
    item: int
    moment: int  # the time or order column
    invoice: int | None
    unit: str  # s, ms, us, text or order
    drop: tuple[str, ...]
    user_type: str  # string or int64
    item_type: str
    fixed_columns: bool  # whether every file must have these columns
    typed: bool  # whether files have types of their own

    @property
    def types(self) -> tuple[pa.DataType, pa.DataType]:
        """Arrow types of user and item ids."""
        return pa.type_for_alias(self.user_type), pa.type_for_alias(self.item_type)

    @property
    def mentioned(self) -> list[int]:
        """Places of the columns that the rules look at."""
        return mentioned(self.drop, self.names)


def make_plan(
    source: Source, file: SourceFile, block: Block, types: tuple[str, str] | None
) -> Plan:
    """The plan for a log whose first file begins with `block`; `types` are the store's id types.

    Raises IngestError for a column that is not there and a rule that is no condition.
    """
    columns = columns_of(source)
    if columns.time is None and columns.order is None:
        raise IngestError(
            "the order of purchases is unknown; set source.columns.time or source.columns.order"
        )
    names = block.names
    user = position(names, columns.user, "user", file)
    item = position(names, columns.item, "item", file)
    ordered = columns.order is not None
    moment = columns.order if columns.order is not None else columns.time
    assert moment is not None
    unit = "order" if ordered else "s" if source.format == "movielens" else source.time_unit
    integer = source.format in ("movielens", "rum")
    found = tuple("int64" if integer else _id_type(block, i, file) for i in (user, item))
    plan = Plan(
        names=names,
        user=user,
        item=item,
        moment=position(names, moment, "order" if ordered else "time", file),
        invoice=None
        if columns.invoice is None
        else position(names, columns.invoice, "invoice", file),
        unit=unit,
        drop=source.drop,
        user_type=(types or found)[0],
        item_type=(types or found)[1],
        fixed_columns=source.format != "jsonl",
        typed=source.format == "parquet",
    )
    for rule in plan.drop:  # one at a time, so that an error names the rule
        _check_rule(rule, plan)
    return plan


def check_columns(plan: Plan, file: SourceFile, block: Block) -> None:
    """IngestError where a file's columns or id types are not those of the store's first file."""
    if not plan.fixed_columns or not block.names:
        return
    if block.names != plan.names:
        lost = [n for n in plan.names if n not in block.names]
        new = [n for n in block.names if n not in plan.names]
        what = f"{_listed('without', lost)}{_listed('with', new)}" or " in another order"
        raise IngestError(
            f"the columns of {file.path} are not those of the files before it:{what}; write the "
            "file with the same columns, or take it into another store"
        )
    if plan.typed:
        for place, wanted in ((plan.user, plan.user_type), (plan.item, plan.item_type)):
            found = _id_type(block, place, file)
            if found != wanted:
                raise IngestError(
                    f"column {plan.names[place]!r} of {file.path} is {found}, in this store it is "
                    f"{wanted}; write it as {wanted}, or take it into another store"
                )


def _id_type(block: Block, place: int, file: SourceFile) -> str:
    kind = plain(block.columns[place]).type
    if pa.types.is_string(kind) or pa.types.is_null(kind):
        return "string"
    if pa.types.is_integer(kind):
        return "int64"
    raise IngestError(
        f"column {block.names[place]!r} of {file.path} holds {kind}; ids are text or integers: "
        "write it as one of these"
    )


def _listed(word: str, names: list[str]) -> str:
    return f" {word} {one_line(', '.join(names[:10]))[:200]}" if names else ""


def evaluate(
    rules: tuple[str, ...], plan: Plan, columns: dict[int, pa.Array]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each SQL condition over the raw columns as text, rows (N,) bool that meet it, and rows
    on which it fails, such as a cast of what is no number."""
    met = [f"try(coalesce(({rule}\n), false)) as met{n}" for n, rule in enumerate(rules)]
    found = _select(", ".join(met), rules, plan, columns)
    return [(as_mask(column), as_mask(pc.is_null(column))) for column in found.columns]


def _check_rule(rule: str, plan: Plan) -> None:
    """IngestError for a rule that is no condition, before the long work starts."""
    lines = {i: pa.nulls(2, pa.string()) for i in range(len(plan.names))}
    kind = _select(f"({rule}\n) as met", (rule,), plan, lines).schema.field(0).type
    if not pa.types.is_boolean(kind):
        raise IngestError(f"source.drop condition {rule!r} gives {kind}, not true or false a line")
    evaluate((rule,), plan, lines)


def _select(
    what: str, rules: tuple[str, ...], plan: Plan, columns: dict[int, pa.Array]
) -> pa.Table:
    places = {plan.names[i]: i for i in plan.mentioned} or {plan.names[plan.user]: plan.user}
    raw = pa.table({name: as_text(columns[i]) for name, i in places.items()})
    named = " and ".join(repr(rule) for rule in rules)
    db = _database()
    try:
        db.register("raw", raw)
        found = db.sql(f"select {what} from raw").to_arrow_table()
    except duckdb.Error as error:
        hint = "; all columns are text: cast(amount as double)" if "cast" in str(error) else ""
        raise IngestError(f"source.drop condition {named} fails: {_short(error)}{hint}") from None
    finally:
        db.unregister("raw")
    if len(found) != len(raw) or len(found.columns) != len(rules):
        raise IngestError(f"source.drop condition {named} is not one condition a line")
    return found


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """DuckDB for conditions: it reaches no file and no network, and a rule cannot change that."""
    limits: dict[str, str | bool | int | float | list[str]] = {
        "enable_external_access": "false",
        "lock_configuration": "true",
        "threads": "1",
    }
    return duckdb.connect(config=limits)


def _short(error: Exception) -> str:
    return one_line(str(error).split("\n\nLINE")[0])[:300]
