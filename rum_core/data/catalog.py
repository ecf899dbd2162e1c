"""The item catalogue: id <-> index, and the fixed hash that breaks ties.

Indices follow the hash of the id, never the order of appearance, which carries information.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rum_core import schema
from rum_core.errors import DamagedError

# MostPopular on the paper's files has three tied pairs of items in reach of its lists, so eight
# outcomes; with this key they fall as in the paper's table 2 (tests/unit/test_golden.py).
TIE_KEY = "rum nightly 0000"


def tie_hash(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """The hash of ids (N,) uint64 that breaks ties."""
    return hash_ids(ids, TIE_KEY)


def hash_ids(ids: pa.Array | pa.ChunkedArray, key: str) -> np.ndarray:
    """A fixed 64-bit hash of ids (N,) under a key of 16 bytes, of an integer id as of its decimal
    text."""
    text = pc.cast(ids, pa.string()).to_numpy(zero_copy_only=False)
    return pd.util.hash_array(text.astype(object), hash_key=key, categorize=False)


def place_of(ids: pa.Array | pa.ChunkedArray, key: str) -> np.ndarray:
    """A fixed place of ids (N,) float64 in [0, 1), even over them: those below a share are a draw
    of that share, and a larger share takes in more and lets none go."""
    return np.asarray((hash_ids(ids, key) >> np.uint64(11)) * 2.0**-53)


@dataclass(frozen=True)
class Catalog:
    """I items; an item's index is its row. `hashes` break ties of score, smallest first."""

    ids: pa.Array  # (I,) string or int64
    purchases: np.ndarray  # (I,) int64
    hashes: np.ndarray  # (I,) uint64

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def from_ids(cls, ids: pa.Array, purchases: np.ndarray) -> "Catalog":
        """A catalogue of distinct ids, in the order of (hash, id)."""
        hashes = tie_hash(ids)
        table = pa.table({"hash": hashes, "id": ids, "n": purchases})
        table = table.sort_by([("hash", "ascending"), ("id", "ascending")])
        return cls(table["id"].combine_chunks(), table["n"].to_numpy(), table["hash"].to_numpy())

    def counting(self, bought: np.ndarray) -> "Catalog":
        """The same items, counted in these purchases (N,) alone, indices of them."""
        return Catalog(self.ids, np.bincount(bought, minlength=len(self)), self.hashes)

    @classmethod
    def from_table(cls, table: pa.Table) -> "Catalog":
        """The inverse of `to_table`; DamagedError for a table that is not of it."""
        types = [f.type for f in table.schema if f.name == schema.ITEM_ID]
        if len(types) != 1 or types[0] not in schema.ID_TYPES:
            raise DamagedError("a stored catalogue has no column of item ids: take the log anew")
        if not table.schema.equals(schema.catalog(types[0])) or any(
            column.null_count for column in table.columns
        ):
            raise DamagedError("a stored catalogue has other columns or nulls: take the log anew")
        return cls(
            table[schema.ITEM_ID].combine_chunks(),
            table[schema.PURCHASES].to_numpy(),
            table[schema.TIE_HASH].to_numpy(),
        )

    def to_table(self) -> pa.Table:
        """The catalogue as stored: schema.catalog, one row an item in index order."""
        index = pa.array(np.arange(len(self), dtype=np.int32))
        columns = [self.ids, index, pa.array(self.purchases), pa.array(self.hashes)]
        return pa.table(columns, schema=schema.catalog(self.ids.type))

    def index_of(self, ids: pa.Array | pa.ChunkedArray | Sequence[object]) -> np.ndarray:
        """Index of each id (N,) int32; -1 for an id that is not in the catalogue."""
        if not isinstance(ids, (pa.Array, pa.ChunkedArray)):
            ids = pa.array(ids, type=self.ids.type)
        found = pc.index_in(pc.cast(ids, self.ids.type), value_set=self.ids)
        return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), dtype=np.int32)

    @cached_property
    def tie_rank(self) -> np.ndarray:
        """Place of each item (I,) int64 in the order of (hash, index): equal scores go by it."""
        order = np.lexsort((np.arange(len(self)), self.hashes))
        rank = np.empty(len(self), dtype=np.int64)
        rank[order] = np.arange(len(self))
        return rank
