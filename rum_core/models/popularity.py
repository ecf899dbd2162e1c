"""MostPopular: items by how often they were bought. First baseline, and every list of last resort.

The score of an item is its share of all purchases, times e^boost where the shop gives one, float32;
equal scores go by the tie rank.
"""

from typing import Any

import numpy as np
from numba import njit, prange

from rum_core.data.catalog import Catalog
from rum_core.data.histories import Histories
from rum_core.ranking.block import Block, no_reasons
from rum_core.ranking.select import contains
from rum_core.settings import Settings
from rum_core.store.checkpoint import SavedModel


class MostPopular:
    """The one order of a catalogue, from which each user gets what he may still get."""

    block_users = 65_536

    def __init__(self, catalog: Catalog, boost: np.ndarray | None = None) -> None:
        purchases = catalog.purchases.astype(np.float64)
        shares = purchases / max(1.0, purchases.sum())
        self.scores = (shares if boost is None else shares * np.exp(boost)).astype(np.float32)
        self.order = np.lexsort((catalog.tie_rank, -self.scores)).astype(np.int32)

    @classmethod
    def of(cls, model: SavedModel) -> "MostPopular":
        """The model `popular`, or popular items beside another: of a model it needs its
        catalogue's counts and the shop's boosts."""
        return cls(model.catalog, model.boost)

    def lists(
        self, block: Block, top_n: int, because: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Items (U, N) and scores (U, N); popularity has no reason, so nothing (U, N, B) after."""
        allowed = np.zeros(len(self.order), dtype=bool)
        allowed[block.candidates] = True
        order = self.order[allowed[self.order]]
        items = np.full((len(block), top_n), -1, dtype=np.int32)
        _first_unseen(order, block.seen, block.seen_offsets, items)
        scores = np.where(items >= 0, self.scores[items], np.float32(-np.inf))
        return items, scores, *no_reasons(len(block), top_n, because)


@njit(cache=True, parallel=True)
def _first_unseen(order: Any, seen: Any, offsets: Any, items: Any) -> None:
    """Fill each user's row (N,) with the first of the order that he has not seen."""
    for user in prange(len(items)):
        found = 0
        for item in order:
            if found == items.shape[1]:
                break
            if not contains(seen, offsets[user], offsets[user + 1], item):
                items[user, found] = item
                found += 1


def fit(histories: Histories, catalog: Catalog, settings: Settings) -> dict[str, np.ndarray]:
    """No tensors: all that it knows are the purchases that are stored with its catalogue."""
    return {}
