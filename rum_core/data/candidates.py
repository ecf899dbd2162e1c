"""Which items a shop's list names: tonight's candidates, or those that are denied.

A sheet with a column `item_id` or with one column only; a CSV may do without a header. Ids that
the catalogue does not hold are left aside.
"""

import logging

import numpy as np

from rum_core import schema
from rum_core.data.catalog import Catalog
from rum_core.data.sheets import in_type, read_ids

log = logging.getLogger(__name__)

CANDIDATES = "recommend.candidates"
DENY = "rules.deny"


def read_candidates(path: str, catalog: Catalog, setting: str = CANDIDATES) -> np.ndarray:
    """Which items of a catalogue the list at a path or URI names (I,) bool.

    Raises SheetError with one line that names the file and what is wrong in it.
    """
    listed = read_ids(path, setting, schema.ITEM_ID)
    ids = in_type(catalog.ids.type, listed, f"{setting} {path}", schema.ITEM_ID)
    found = catalog.index_of(ids)
    unknown = int((found < 0).sum())
    if unknown:
        log.info("%d of the %d ids in %s are not in the catalogue", unknown, len(ids), path)
    chosen = np.zeros(len(catalog), dtype=bool)
    chosen[found[found >= 0]] = True
    return chosen
