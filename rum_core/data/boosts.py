"""What a shop adds to the scores of its items (rules.boosts): a sheet with `item_id`, `boost`."""

import numpy as np
import pyarrow.compute as pc

from rum_core import schema
from rum_core.data.catalog import Catalog
from rum_core.data.sheets import SheetError, as_numbers, read_rows

BOOSTS = "rules.boosts"
BOOST = "boost"
LARGEST = 20.0  # e^20 is 500 million times


def read_boosts(path: str, catalog: Catalog) -> np.ndarray:
    """The boost of each item of a catalogue (I,) float64, 0 where the sheet has none.

    SheetError with one line that names the file and what is wrong in it.
    """
    where = f"{BOOSTS} {path}"
    found = read_rows(path, BOOSTS, schema.ITEM_ID, catalog.ids.type, (BOOST,))
    if BOOST not in found.column_names:
        raise SheetError(f"{where} has no column {BOOST}: give what is added to each item's score")
    values = as_numbers(found[BOOST], where, BOOST)
    values = pc.fill_null(values, 0.0).to_numpy()
    if np.abs(values).max() > LARGEST:
        raise SheetError(
            f"{where} holds {values[np.abs(values).argmax()]:g}: a boost is between -20 and 20 "
            "(to keep an item out of all lists use rules.deny)"
        )
    boosts = np.zeros(len(catalog))
    index = catalog.index_of(found[schema.ITEM_ID])
    boosts[index[index >= 0]] = values[index >= 0]
    return boosts
