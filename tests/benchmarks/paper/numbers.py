"""Table 1 of the paper: what a log holds, counted from it."""

import numpy as np

from rum_core.data.cuts import UserCut
from rum_core.data.snapshots import latest_snapshot, load_snapshot, read_histories
from rum_core.settings import Settings
from rum_core.store.layout import Store
from rum_core.training.past import Past

PRINTED = {
    "instant_video": "Table 1 prints 33,726 ratings: twice the training purchases, for it counts "
    "as many sampled negatives."
}


def numbers_of(settings: Settings, store: Store) -> str:
    """Customers, items and purchases of a log as it is measured, and what nobody can hit."""
    snapshot = load_snapshot(store, latest_snapshot(store, settings.night))
    everyone = read_histories(store, snapshot.id)
    enough = everyone.take(np.flatnonzero(everyone.lengths >= settings.history.min_purchases))
    past = Past.where_split(everyone, snapshot.catalog, settings.history)
    cut = past.cut if past else UserCut(settings.history.train_fraction)
    before, after = cut.part(enough, "train"), cut.after(enough, "train")
    new = 1 - np.isin(after.items, before.items).mean()
    items = len(np.unique(enough.items))
    sparse = 1 - len(enough.items) / (len(enough) * items)
    return (
        f"{len(enough):,} customers with {settings.history.min_purchases} purchases or more, "
        f"{items:,} items, {len(enough.items):,} purchases ({100 * sparse:.2f} % sparse): "
        f"{len(before.items):,} in training parts and {len(after.items):,} after them, "
        f"{100 * new:.1f} % of these of items that no training part holds. "
        f"{PRINTED.get(settings.dataset, '')}"
    ).rstrip()
