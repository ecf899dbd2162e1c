"""The log as it stood at the moment of a global cut: what a night of that moment could have known.

A customer who came later, an item that nobody had bought yet and the purchases of both are not in
it, so nothing that is learned from it, counted in it or drawn from it can know of them.
"""

from dataclasses import dataclass

import numpy as np

from rum_core.data.catalog import Catalog
from rum_core.data.cuts import TimeCut
from rum_core.data.histories import Histories
from rum_core.settings import History


@dataclass(frozen=True)
class Past:
    """Customers with history.min_purchases by then, and the catalogue with its counts by then."""

    cut: TimeCut
    histories: Histories  # indices of this catalogue
    catalog: Catalog

    @classmethod
    def where_split(cls, everyone: Histories, catalog: Catalog, settings: History) -> "Past | None":
        """The past, where the log is split by time; None where each customer's history is."""
        return cls.of(everyone, catalog, settings) if settings.split == "time" else None

    @classmethod
    def of(cls, everyone: Histories, catalog: Catalog, settings: History) -> "Past":
        """The past of a whole log, cut at the share of its purchases that the settings name."""
        cut = TimeCut.of(everyone.times, settings.train_fraction)
        before, known = as_of(everyone, catalog, cut.train_until)
        enough = np.flatnonzero(before.lengths >= settings.min_purchases)
        return cls(cut, before.take(enough), known)


def as_of(everyone: Histories, catalog: Catalog, until: int) -> tuple[Histories, Catalog]:
    """The customers, purchases and items of a log before a moment (microseconds since 1970, UTC).

    Indices are those of the catalogue returned, which counts these purchases alone.
    """
    before = TimeCut(until, until).part(everyone, "train")
    counts = np.bincount(before.items, minlength=len(catalog)).astype(np.int64)
    bought = counts > 0
    known = Catalog(catalog.ids.filter(bought), counts[bought], catalog.hashes[bought])
    index = np.where(bought, np.cumsum(bought) - 1, -1).astype(np.int32)
    return before.take(np.flatnonzero(before.lengths)).remap(index), known
