"""A shop's rules for tonight's lists, read for the items of one model.

In this order: held-out customers get popular items; denied items are no candidates; a boost b is
added to a score, and multiplies an item's popularity by e^b; a list is filled with the best items,
each let in unless it scores below the minimum or its category or brand has its number of items
already; what is missing is filled with popular items, by the same rules but for the minimum, which
is of the model's scores. N is the customer's own.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rum_core.data.boosts import read_boosts
from rum_core.data.candidates import DENY, read_candidates
from rum_core.data.catalog import Catalog, hash_ids, place_of
from rum_core.data.items import BRAND, CATEGORY, ITEMS, read_items
from rum_core.data.segments import Sizes, read_sizes
from rum_core.data.sheets import SheetError
from rum_core.settings import Settings

HOLDOUT = "holdout"  # source of a held-out customer's list


@dataclass(frozen=True)
class Rules:
    """The rules for I items; without any, each customer gets the N best."""

    groups: np.ndarray  # (R, I) int32 category or brand of each item, -1: none, not counted
    most: np.ndarray  # (R,) int64 items of one group in a list
    grouped_by: tuple[str, ...] = ()  # (R,) category, brand
    denied: np.ndarray | None = None  # (I,) bool
    boost: np.ndarray | None = None  # (I,) float64, added to scores
    min_score: float = -np.inf  # of the model's items
    sizes: Sizes | None = None  # N of customers that have their own
    holdout: float = 0.0  # share of customers
    holdout_name: str = ""

    @classmethod
    def none(cls, items: int) -> "Rules":
        """No rule."""
        return cls(np.zeros((0, items), np.int32), np.zeros(0, np.int64))

    @property
    def fills(self) -> bool:
        """Whether the rest of a list may be popular items."""
        return self.min_score > -np.inf

    def allow(self, candidates: np.ndarray | None) -> np.ndarray:
        """Which items (I,) bool of these candidates, None: of all, may stand in a list."""
        able = np.ones(self.groups.shape[1], dtype=bool) if candidates is None else candidates
        return able if self.denied is None else able & ~self.denied

    def room(self, able: np.ndarray) -> int:
        """The most items of `able` (C,) that any list has room for."""
        room = len(able)
        for groups, most in zip(self.groups, self.most, strict=True):
            counts = np.bincount(groups[able] + 1)  # the first: of none
            room = min(room, int(counts[0] + np.minimum(counts[1:], most).sum()))
        return room

    def wanted(self, user_ids: pa.Array, top_n: int) -> np.ndarray:
        """N of each customer (U,)."""
        if self.sizes is None:
            return np.full(len(user_ids), top_n, np.int32)
        return self.sizes.of(user_ids, top_n)

    def longest(self, top_n: int) -> int:
        """The largest N of any customer."""
        return top_n if self.sizes is None else int(self.sizes.wanted.max(initial=top_n))

    def held_out(self, user_ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Which customers are held out (U,) bool: by a hash of their id, under the group's name."""
        if not self.holdout:
            return np.zeros(len(user_ids), dtype=bool)
        key = hashlib.sha256(self.holdout_name.encode()).hexdigest()[:16]
        return np.asarray(place_of(user_ids, key) < self.holdout)

    def key(self) -> dict[str, Any]:
        """What stands for each rule in use but the denied items, where two nights are compared."""
        sizes = self.sizes
        found = {
            "boosts": None if self.boost is None else _digest(self.boost),
            "categories and brands": _digest(self.groups, self.most) if len(self.most) else None,
            "min_score": self.min_score if self.fills else None,
            "segments": sizes and _digest(*_in_order(sizes)),
            "holdout": [self.holdout, self.holdout_name] if self.holdout else None,
        }
        return {rule: said for rule, said in found.items() if said is not None}


_KEY = "rules of a night"  # of hashes that stand for the ids of a sheet, 16 bytes


def read_rules(settings: Settings, catalog: Catalog, users: pa.DataType) -> Rules:
    """The rules of these settings for a catalogue; customers' ids are of type `users`.

    SheetError with one line that names the file and what is wrong in it.
    """
    chosen = settings.rules
    bounds = {CATEGORY: chosen.per_category, BRAND: chosen.per_brand}
    bounds = {name: most for name, most in bounds.items() if most}
    return Rules(
        groups=_groups(settings.source.items, catalog, list(bounds)),
        most=np.array(list(bounds.values()), np.int64),
        grouped_by=tuple(bounds),
        denied=read_candidates(chosen.deny, catalog, DENY) if chosen.deny else None,
        boost=read_boosts(chosen.boosts, catalog) if chosen.boosts else None,
        min_score=-np.inf if chosen.min_score is None else chosen.min_score,
        sizes=read_sizes(chosen.segments, chosen.segment_n, users) if chosen.segments else None,
        holdout=chosen.holdout,
        holdout_name=chosen.holdout_name,
    )


def _groups(path: str, catalog: Catalog, names: list[str]) -> np.ndarray:
    groups = np.full((len(names), len(catalog)), -1, np.int32)
    items = read_items(path, catalog.ids) if names else None
    for row, name in enumerate(names):
        assert items is not None
        if name not in items.column_names:
            raise SheetError(
                f"{ITEMS} {path} has no column {name}: add it, or leave rules.per_{name} = 0"
            )
        codes = items[name].combine_chunks().dictionary_encode().indices
        groups[row] = pc.fill_null(codes, -1).to_numpy(zero_copy_only=False)
    return groups


def _in_order(sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the customers and their N, in an order that is not the sheet's."""
    hashes = hash_ids(sizes.user_ids, _KEY)
    order = np.argsort(hashes, kind="stable")
    return hashes[order], sizes.wanted[order]


def _digest(*values: np.ndarray) -> str:
    return hashlib.sha256(b"".join(value.tobytes() for value in values)).hexdigest()
