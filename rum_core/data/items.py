"""What the shop knows of its items (source.items): a sheet with `item_id` and any of title,
category, brand and price. It may lack items of the catalogue, and hold others."""

import pyarrow as pa
import pyarrow.compute as pc

from rum_core import schema
from rum_core.data.sheets import as_numbers, as_text, read_rows

ITEMS = "source.items"
TITLE, CATEGORY, BRAND, PRICE = "title", "category", "brand", "price"
TEXTS = (TITLE, CATEGORY, BRAND)


def read_items(path: str, ids: pa.Array) -> pa.Table:
    """Attributes of these items, a row each in their order: `item_id`, and those of the columns
    title, category, brand (string) and price (float64) that the sheet has; null is not known.

    SheetError with one line that names the file and what is wrong in it.
    """
    found = read_rows(path, ITEMS, schema.ITEM_ID, ids.type, (*TEXTS, PRICE))
    where, columns = f"{ITEMS} {path}", {schema.ITEM_ID: ids}
    row = pc.index_in(ids, value_set=found[schema.ITEM_ID])
    for name in found.column_names:
        if name in TEXTS:
            columns[name] = as_text(found[name], where, name).take(row)
        elif name == PRICE:
            columns[name] = as_numbers(found[name], where, name).take(row)
    return pa.table(columns)


def read_titles(path: str, ids: pa.Array) -> dict[object, str]:
    """The title of each of these items that has one, by id; nothing where `path` is empty."""
    if not path:
        return {}
    items = read_items(path, ids)
    if TITLE not in items.column_names:
        return {}
    named = items.filter(pc.is_valid(items[TITLE]))
    return dict(zip(named[schema.ITEM_ID].to_pylist(), named[TITLE].to_pylist(), strict=True))
